"""The supervisor, which is the process of `pipeline start`: starts the others, watches, restarts and stops them.

Signal handlers only count; the main loop acts.
"""

import contextlib
import logging
import os
import shutil
import signal
import sys
import time
import uuid
from collections import Counter
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

import msgspec

from pipeline.config.controls import Controls
from pipeline.config.plan import Plan, Until, kind_of
from pipeline.config.schema import Config
from pipeline.config.secrets import secrets_of
from pipeline.config.source_checks import fed_by_sources
from pipeline.errors import PipelineError
from pipeline.interrupts import SIGNALS
from pipeline.locks import Locks, make_runtime_folder, sweep_runtime_folders
from pipeline.plan_updates import PlanSender
from pipeline.sockets.endpoints import Endpoints
from pipeline.supervisor.child import HTTP, preloaded_modules, run_child
from pipeline.supervisor.directions import DIRECTIONS, Direction
from pipeline.supervisor.fork_server import SERVER_GONE, ForkServer
from pipeline.supervisor.http_child import HttpChild
from pipeline.supervisor.kept_pauses import read_pauses
from pipeline.supervisor.live_line import LiveLine
from pipeline.supervisor.process_publisher import ProcessPublisher
from pipeline.supervisor.reload import ReloadInputs
from pipeline.supervisor.restart_policy import RestartPolicy
from pipeline.supervisor.service_manager import ServiceManager, WorkMonitor, longest_work
from pipeline.supervisor.steering import Steering
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire.supervisor import ProcessStatus
from pipeline.work_file import work_of, work_path

#: Name of this process.
SUPERVISOR = "supervisor"
#: Longest wait of the main loop, seconds.
TICK_SECONDS = 0.1
QUIET_TICK_SECONDS = 1.0
#: Seconds between two log lines of progress.
PROGRESS_SECONDS = 10.0
#: Pause before a fork that failed is tried again, seconds.
FORK_RETRY_SECONDS = 0.5
#: Seconds between two reports of a death that the coordinator has not answered.
REPEAT_SECONDS = 1.0
#: Seconds between two Drains: a coordinator that was restarted has not received the first one.
DRAIN_REPEAT_SECONDS = 0.5

class Supervisor:
    """Runs one pipeline from `start` to `stop`."""

    def __init__(self, config: Config, workers: int, writers: int, logger: logging.Logger,
                 until: Until = "", reload: ReloadInputs | None = None) -> None:
        """Counts signals from now on. `reload`: what the configuration is read from; None: it cannot be read again.

        Raises PipelineError when the runtime folder cannot be used, or is in use.
        """
        self.config = config
        self.logger = logger
        self._signals = 0
        #: Readable after a signal, so that it ends the wait.
        self._signal_pipe, self._signal_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._signal_writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._count_signal)
        self.steering = Steering(self, None if until else reload)
        signal.signal(signal.SIGHUP, self.steering.hang_up)
        self._own_folder = not config.pipeline.runtime_dir
        sweep_runtime_folders()
        self._locks = Locks()
        folder = make_runtime_folder(self._locks, config.pipeline.runtime_dir)
        try:
            self.http = HttpChild(config, logger)
        except PipelineError:
            if self._own_folder:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        self.endpoints = Endpoints(folder, config.network)
        self.plan = Plan(config, self.endpoints.folder, workers, writers, config.pipeline.readers, until,
                         uuid.uuid4().hex, controls=Controls(read_pauses(config, logger)),
                         files=reload.files if reload is not None else ())
        self.directions = [make(self.plan) for make in DIRECTIONS if make.stages(self.plan)]
        self._direction = {name: direction for direction in self.directions for name in direction.names}
        #: They start when the others are done: the sinks of a batch job end with what is in their topics at their
        #: start, which includes what the pipeline's own sources send.
        self._later: list[Direction] = self.directions[:1] if until and fed_by_sources(config) else []
        del self.directions[:len(self._later)]
        self.processes: dict[str, ForkServerProcess] = {}
        self.restarts = RestartPolicy(config.pipeline.max_restarts, config.pipeline.restart_window_ms / 1000)
        self.fork = ForkServer(self.plan.folder, preloaded_modules(self.plan), secrets_of(config))
        #: When it was noticed that a fork server has ended: seconds, monotonic.
        self._server_gone_at = float("-inf")
        #: Connections that carry why a process failed, by name.
        self._reasons: dict[str, Connection] = {}
        self._plans = PlanSender()
        #: When each process was started, and how often.
        self._started: dict[str, float] = {}
        self._started_at: dict[str, float] = {}
        self._starts: Counter[str] = Counter()
        #: How often each process has died. One that a reload ends has not.
        self._died: Counter[str] = Counter()
        #: When a dead process is to be restarted: seconds, monotonic.
        self._due: dict[str, float] = {}
        #: How the processes that were killed because they hung have ended, for people; and the last death.
        self._hung: dict[str, str] = {}
        self._last_death = ""
        #: How each process ended the last time.
        self._deaths: dict[str, str] = {}
        #: Deaths during work that the coordinator has not answered; and when they were reported again.
        self._unanswered: list[wire.ProcessDied] = []
        self._repeated_at = 0.0
        self._drain_until = 0.0
        self._drain_at = 0.0
        self._progress_at = time.monotonic()
        self._live = LiveLine(sys.stderr, config.pipeline.log_format)
        self._publisher = ProcessPublisher(self.endpoints, self.plan.run)
        self.service = ServiceManager(os.environ)
        self._monitors = self._new_monitors()

    def run(self) -> int:
        """Runs until a signal, or until the pipeline is complete. Returns the exit code.

        Raises PipelineError when processes keep dying, or one of them reports that the pipeline must stop.
        """
        try:
            self.start_directions(self.directions)
            while not self._finished():
                self.reap()
                for direction in self.directions:
                    direction.receive()
                self.apply_excuses()
                self.kill_hung()
                self._check_folder()
                self.restart_due()
                self._log_progress()
                self._publish()
                self._tell_service_manager()
                self.steering.step()
            return self._summary()
        except PipelineError as error:
            self.service.failed(str(error))
            raise
        finally:
            signal.set_wakeup_fd(-1)
            self._live.clear()
            self.kill_all()
            self.steering.reload.close()
            self.http.close()
            if self._own_folder:
                shutil.rmtree(self.endpoints.folder, ignore_errors=True)
            self._locks.release()

    def _check_folder(self) -> None:
        """Raises PipelineError when the runtime folder was removed: a process that dies could not be replaced."""
        if not os.path.isdir(self.endpoints.folder):
            raise PipelineError(f"the runtime folder {self.endpoints.folder} was removed while the pipeline ran; its "
                                "processes cannot connect to each other without it. Start again, and set "
                                "pipeline.runtime_dir to a folder that is not cleaned up. Nothing is lost: messages "
                                "that were not written will be read again")

    def end(self, direction: Direction) -> None:
        """Kills the processes of a direction. What they hold is read again."""
        for name in direction.names:
            self._due.pop(name, None)
            if (process := self.processes.pop(name, None)) is not None:
                process.kill()
                process.join()
                self._reasons.pop(name).close()
        self._unanswered = [died for died in self._unanswered if died.name not in direction.names]

    def use(self, plan: Plan, directions: list[Direction]) -> None:
        """Uses a new plan, and these directions, from now on. The processes that run get the plan."""
        self.plan, self.config, self.directions = plan, plan.config, directions
        for name in self.processes:
            self._plans.send(self._reasons[name], plan)
        self.http.use(plan)
        self._direction = {name: direction for direction in self.directions for name in direction.names}
        self._monitors = self._new_monitors()

    def next_plan_of(self, coordinator: str) -> Plan:
        """The plan with which a coordinator is started next."""
        return msgspec.structs.replace(self.plan, incarnation=self._starts[coordinator])

    def _new_monitors(self) -> dict[str, WorkMonitor]:
        return {name: WorkMonitor(longest_work(self.config)) for name in self._direction}

    def stop(self) -> None:
        """Stops as if a signal had come."""
        self._signals += 1

    @property
    def is_stopping(self) -> bool:
        """Whether a signal has come."""
        return self._signals > 0

    def _count_signal(self, _signal: int, _frame: object) -> None:
        self._signals += 1

    def start_directions(self, directions: list[Direction]) -> None:
        """Starts the coordinators and the stages of `directions`."""
        for direction in directions:
            for name in direction.names:
                self.start_process(name)
            self.logger.info("started%s; sockets in %s", direction.label, self.endpoints.folder)

    def start_process(self, name: str) -> None:
        """Starts a process by its name; a little later if the fork server has just been killed."""
        number = name.rpartition("-")[2]
        index = int(number) if number.isdigit() else 0
        plan = msgspec.structs.replace(self.plan, incarnation=self._starts[name])
        self._starts[name] += 1
        # It holds the work of the previous process of that name.
        work_path(self.endpoints.folder, name).unlink(missing_ok=True)
        try:
            process, reasons = self.fork.start(name, run_child, name, index, plan)
        except (OSError, EOFError) as error:
            self.logger.warning("%s cannot be started; retrying: %s", name, error)
            self._due[name] = time.monotonic() + FORK_RETRY_SECONDS
            return
        self.processes[name], self._reasons[name] = process, reasons
        self._started[name] = time.monotonic()
        self._started_at[name] = time.time()
        self._direction[name].watchdog.started(name, self._started[name])

    def reap(self) -> None:
        """Waits until something has happened, at most a tick, and handles processes that have died.

        Raises PipelineError when one cannot start.
        """
        names = {process.sentinel: name for name, process in self.processes.items()}
        descriptors = [descriptor for direction in self.directions for descriptor in direction.descriptors]
        busy = self._signals or self._due or self._unanswered or self.http.waits or \
            self.steering.is_draining
        watched = [one for one in (self.http.sentinel, self.http.connection, self.steering.reload.sentinel)
                   if one is not None]
        ready = wait([*names, *watched, self._signal_pipe, *descriptors], TICK_SECONDS if busy else QUIET_TICK_SECONDS)
        for sentinel in [one for one in ready if one in names]:
            self._handle_death(names[sentinel])
        for request in self.http.requests():
            self.steering.control(request)
        if self.http.sentinel in ready:
            self._http_ended()
        with contextlib.suppress(BlockingIOError):
            os.read(self._signal_pipe, 1_000)

    def _handle_death(self, name: str) -> None:
        """Reports the death of a process to the coordinator, and schedules its restart."""
        process = self.processes.pop(name)
        process.join()
        now = time.monotonic()
        reason = _reason(self._reasons.pop(name))
        death = f"{_death(process.exitcode)}{': ' if reason else ''}{reason}"
        # A process that was killed while it started could perhaps have started.
        killed = process.exitcode is not None and process.exitcode < 0 or process.exitcode == SERVER_GONE
        booted = killed or self._direction[name].watchdog.booted(name, process.pid)
        pause = 0.0
        # All that were forked from the same server end with it, which counts as one death.
        if process.exitcode != SERVER_GONE or self._started[name] > self._server_gone_at:
            pause = self.restarts.died(name, now, now - self._started[name], booted)
            self._server_gone_at = now if process.exitcode == SERVER_GONE else self._server_gone_at
        if self.restarts.fails_at_boot(name):
            raise PipelineError(f"{name} failed to start: {death}. No messages were lost")
        self._last_death = f"{name} ({death})"
        self._deaths[name] = death
        self._died[name] += 1
        self.logger.warning("%s died (%s); restarting it%s", name, death, f" in {pause:.2g} s" if pause else "")
        if name != self._direction[name].coordinator:
            died = wire.ProcessDied(name, work_of(self.endpoints.folder, name), self._hung.pop(name, death),
                                    process.pid or 0)
            self._direction[name].link.send(died)
            if died.work:
                self._unanswered.append(died)
                self._repeated_at = now
        self._due[name] = now + pause

    def _http_ended(self) -> None:
        """The HTTP process has died. It does not count as a restart: the others do not need it."""
        self.http.ended(_death(self.http.exitcode))

    def _publish(self) -> None:
        """Starts the HTTP process, if it is due, and publishes what is known of the processes."""
        self.http.start_due(self.fork, self.plan)
        names = [name for direction in (*self.directions, *self._later) for name in direction.names]
        found = [ProcessStatus(name, kind_of(name), process.pid or 0 if (process := self.processes.get(name)) else 0,
                               self._started_at.get(name, 0.0), self._died[name],
                               self._deaths.get(name, "")) for name in names]
        http = self.http
        found.append(ProcessStatus(HTTP, HTTP, http.pid, http.started_at, http.deaths, http.last_death))
        self._publisher.publish(found, bool(self._signals), self.steering.reload.status(), self.steering.status(),
                                at_once=self.http.waits)

    def _tell_service_manager(self) -> None:
        """Tells systemd that the pipeline is ready, that work goes on, and what it does."""
        if not self.service.is_used:
            return
        now = time.monotonic()
        monitors = [self._monitors[direction.coordinator] for direction in self.directions]
        for monitor, direction in zip(monitors, self.directions, strict=True):
            monitor.observe(direction.status, now)
        pids = {name: process.pid or 0 for name, process in self.processes.items()}
        if not self.service.is_ready and all(direction.has_booted(pids) for direction in self.directions):
            self.service.ready("; ".join(direction.state() for direction in self.directions))
        self.service.tick(monitors, lambda: "; ".join(direction.state() for direction in self.directions))

    def apply_excuses(self) -> None:
        """Uncounts deaths that messages caused. Raises PipelineError when there are too many others."""
        for excused in [excused for direction in self.directions for excused in direction.excused()]:
            answered = [died for died in self._unanswered if (died.name, died.work) == (excused.name, excused.work)]
            if not answered:
                continue
            self._unanswered.remove(answered[0])
            if excused.deaths:
                self.restarts.excuse(excused.name, excused.deaths)
                if excused.name in self._due:
                    self._due[excused.name] = time.monotonic()
        self._repeat_reports()
        if self.restarts.too_many(time.monotonic()):
            raise PipelineError(
                f"{self.restarts.deaths} processes died within {self.config.pipeline.restart_window_ms / 1000:g} s "
                f"(pipeline.max_restarts is {self.config.pipeline.max_restarts}), the last was {self._last_death}; see "
                "the lines above. Nothing is lost: messages that were not written are read again at the next start")

    def _repeat_reports(self) -> None:
        """Reports deaths again that the coordinator has not answered: it may have died itself."""
        now = time.monotonic()
        if self._unanswered and now - self._repeated_at > REPEAT_SECONDS:
            self._repeated_at = now
            for died in self._unanswered:
                self._direction[died.name].link.send(died)

    def restart_due(self) -> None:
        """Restarts the dead processes whose pause is over."""
        for name in [name for name, due in self._due.items() if time.monotonic() >= due]:
            del self._due[name]
            self.start_process(name)

    def kill_hung(self) -> None:
        """Kills processes that send no heartbeats. Their deaths are handled in the next tick."""
        for direction in self.directions:
            pids = {name: process.pid for name, process in self.processes.items()
                    if process.pid is not None and name in direction.names}
            for name in direction.watchdog.hung(pids, time.monotonic()):
                self.logger.warning("%s hangs: no heartbeat for %g s; killing it", name,
                                    self.config.pipeline.heartbeat_timeout_ms / 1000)
                self._hung[name] = f"hung for {self.config.pipeline.heartbeat_timeout_ms / 1000:g} s, and was killed"
                self.processes[name].kill()
                direction.watchdog.started(name, time.monotonic())

    def _finished(self) -> bool:
        """Acts on signals. True when the pipeline has drained, or must stop without that."""
        now = time.monotonic()
        drained = all(direction.drained for direction in self.directions)
        if not self._signals:
            if self.steering.is_draining:
                return False
            if not drained or not self._later:
                return drained
            self.logger.info("the sources are complete; starting the sinks")
            self.start_directions(self._later)
            self.directions += self._later
            self._later = []
            return False
        if not self._drain_until:
            self._drain_until = now + self.config.pipeline.drain_timeout_ms / 1000
            self.service.stopping("finishing what is in flight")
            self.logger.info("stopping: finishing what is in flight, at most %g s; a second signal stops at once",
                             self.config.pipeline.drain_timeout_ms / 1000)
        if now >= self._drain_at:
            self._drain_at = now + DRAIN_REPEAT_SECONDS
            for direction in self.directions:
                direction.link.send(common.Drain())
        return drained or self._signals > 1 or now > self._drain_until

    def _summary(self) -> int:
        code = 0
        for direction in self.directions:
            drained, line = direction.summary()
            self.logger.log(logging.INFO if drained else logging.WARNING, "%s", line)
            code = code if drained else 1
        return code

    def _log_progress(self) -> None:
        now = time.monotonic()
        seconds = now - self._progress_at
        if self._live.show(self.directions, now):
            return
        if seconds >= PROGRESS_SECONDS:
            self._progress_at = now
            for line in filter(None, (direction.progress(seconds) for direction in self.directions)):
                self.logger.info("%s", line)

    def kill_all(self) -> None:
        """Kills all processes. They hold nothing that cannot be read again."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.join()


def _reason(reasons: Connection) -> str:
    """Why a process failed, if it has sent the reason."""
    with reasons:
        try:
            return str(reasons.recv()) if reasons.poll(0) else ""
        except (EOFError, OSError):
            return ""


def _death(exitcode: int | None) -> str:
    if exitcode == -signal.SIGVTALRM:
        return "a program of jq took longer for one message than max_message_cpu_ms"
    if exitcode is not None and exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return "with the fork server" if exitcode == SERVER_GONE else f"exit code {exitcode}"
