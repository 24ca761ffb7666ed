"""The supervisor, the CLI's own process: spawns the others, watches, restarts and stops them.

Signal handlers only count; the main loop acts.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections import deque
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

import zmq

from pipeline import wire
from pipeline.child import ControlLink, Plan, run_child
from pipeline.endpoints import Endpoints
from pipeline.errors import PipelineError
from pipeline.schema import Config

#: The main loop looks at everything at least so often, seconds.
TICK_SECONDS = 0.1
#: Seconds between two lines of progress in the log, and between two Drains.
PROGRESS_SECONDS = 10.0
DRAIN_REPEAT_SECONDS = 0.5
#: More deaths than this within the window end the pipeline.
MAX_RESTARTS = 10
RESTART_WINDOW_SECONDS = 60.0


class Supervisor:
    """Runs one pipeline from `start` to `stop`."""

    def __init__(self, config: Config, workers: int, writers: int, logger: logging.Logger) -> None:
        self.config = config
        self.logger = logger
        self._own_folder = not config.pipeline.runtime_dir
        folder = config.pipeline.runtime_dir or tempfile.mkdtemp(prefix="pipeline-")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.endpoints = Endpoints(folder)
        self.plan = Plan(config, self.endpoints.folder, workers, writers)
        self.status: wire.Status | None = None
        self.processes: dict[str, SpawnProcess] = {}
        self._spawn = multiprocessing.get_context("spawn")
        self._deaths: deque[float] = deque()
        self._signals = 0
        self._drain_until = 0.0
        self._drain_at = 0.0
        self._progress_at = time.monotonic()
        self._progress_read = -1
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.link = ControlLink(context, self.endpoints.control, "supervisor")
        self.subscriber = context.socket(zmq.SUB)
        self.subscriber.setsockopt(zmq.CONFLATE, 1)
        self.subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        self.subscriber.connect(self.endpoints.status)

    def run(self) -> int:
        """Runs until a signal, then drains. Returns the exit code; raises PipelineError when workers keep dying."""
        signal.signal(signal.SIGINT, self._count_signal)
        signal.signal(signal.SIGTERM, self._count_signal)
        try:
            self.start_all()
            while not self._finished():
                self.reap()
                self._receive_status()
                self._log_progress()
            return self._last_words()
        finally:
            self.kill_all()
            if self._own_folder:
                shutil.rmtree(self.endpoints.folder, ignore_errors=True)

    def _count_signal(self, _signal: int, _frame: object) -> None:
        self._signals += 1

    def start_all(self) -> None:
        """Starts the coordinator and the stages."""
        for name in ["coordinator", *self.plan.stages()]:
            self.start_process(name)
        self.logger.info("started: 1 ingest, %d encoders, %d writers, 1 coordinator; sockets in %s",
                         self.plan.workers, self.plan.writers, self.endpoints.folder)

    def start_process(self, name: str) -> None:
        """Spawns one process by its name."""
        number = name.rpartition("-")[2]
        index = int(number) if number.isdigit() else 0
        process = self._spawn.Process(target=run_child, args=(name, index, self.plan, os.getpid()), name=name)
        process.start()
        self.processes[name] = process

    def reap(self) -> None:
        """Waits a tick; restarts what has died, and tells the coordinator."""
        names = {process.sentinel: name for name, process in self.processes.items()}
        for sentinel in wait(list(names), TICK_SECONDS):
            name = names[sentinel]  # type: ignore[index]
            process = self.processes[name]
            process.join()
            self.logger.warning("%s died (%s); starting it again", name, _death(process.exitcode))
            self._deaths.append(time.monotonic())
            while self._deaths and time.monotonic() - self._deaths[0] > RESTART_WINDOW_SECONDS:
                self._deaths.popleft()
            if len(self._deaths) > MAX_RESTARTS:
                raise PipelineError(f"{len(self._deaths)} processes died within {RESTART_WINDOW_SECONDS:.0f} s, the "
                                    f"last was {name}; see the lines above. Nothing is lost: what was not written "
                                    "will be read again at the next start")
            if name != "coordinator":
                self.link.send(wire.Lost(name))
            self.start_process(name)

    def _receive_status(self) -> None:
        while self.subscriber.poll(0):
            self.status = wire.decode_status(self.subscriber.recv())

    def _finished(self) -> bool:
        """Acts on signals. True when the pipeline has drained, or must stop without."""
        now = time.monotonic()
        if not self._signals:
            return False
        if not self._drain_until:
            self._drain_until = now + self.config.pipeline.drain_seconds
            self.logger.info("stopping: finishing what is in flight, at most %g s; a second signal stops at once",
                             self.config.pipeline.drain_seconds)
        if now >= self._drain_at:
            self._drain_at = now + DRAIN_REPEAT_SECONDS
            self.link.send(wire.Drain())
        drained = self.status is not None and self.status.drained
        return drained or self._signals > 1 or now > self._drain_until

    def _last_words(self) -> int:
        status = self.status
        if status is not None and status.drained:
            self.logger.info("stopped: %d messages read, %d points written, %d rejected, every offset committed",
                             status.read, status.written, status.rejected)
            return 0
        if status is None:
            self.logger.warning("stopped before anything was read")
            return 1
        left = ", ".join(f"{p.stream}/{p.topic} partition {p.partition}: offsets {p.committed + 1} to {p.dispatched}"
                         for p in status.partitions if p.dispatched > p.committed)
        self.logger.warning("stopped with %d messages in flight; not committed, and read again at the next start: %s",
                            status.in_flight, left or "nothing")
        return 1

    def _log_progress(self) -> None:
        now, status = time.monotonic(), self.status
        if status is None or now - self._progress_at < PROGRESS_SECONDS or status.read == self._progress_read:
            return
        rate = max(0, status.read - max(self._progress_read, 0)) / (now - self._progress_at)
        lag = sum(max(0, p.end - p.committed) for p in status.partitions)
        self.logger.info("read %d (%.0f/s), written %d, rejected %d, in flight %d, lag %d", status.read, rate,
                         status.written, status.rejected, status.in_flight, lag)
        self._progress_at, self._progress_read = now, status.read

    def kill_all(self) -> None:
        """Ends every child at once. They hold nothing that can't be read again."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.join()


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"
