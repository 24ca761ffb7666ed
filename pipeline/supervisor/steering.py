"""Steers a running pipeline: reloads of the configuration, and what operators ask for."""

import logging
import os
import time
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from pipeline.config.changes import changes_between
from pipeline.config.compare import changed_keys
from pipeline.config.controls import ControlRequest, applied, labels
from pipeline.config.plan import Plan
from pipeline.config.schema import Config
from pipeline.config.secrets import secrets_of
from pipeline.errors import PipelineError
from pipeline.logs import hide, use_log_options
from pipeline.supervisor.directions import DIRECTIONS, Direction, SinkDirection, SourceDirection
from pipeline.supervisor.kept_pauses import keep_pauses
from pipeline.supervisor.reload import Checked, Reload, ReloadInputs, has_terminal
from pipeline.wire import common
from pipeline.wire.supervisor import ControlsStatus, Outcome

if TYPE_CHECKING:
    from pipeline.supervisor.process import Supervisor

#: Name of the supervisor's process.
SUPERVISOR: Final = "supervisor"
#: Seconds between two Drains: a coordinator that was restarted has not received the first one.
DRAIN_REPEAT_SECONDS: Final = 0.5
_ACTS: Final = {"skip": "given up messages", "pause": "paused reading", "resume": "ended pauses",
                "log-level": "set the level of the log"}


class Replacement(Struct, frozen=True):
    """A reload for which directions have to finish what is in flight."""

    plan: Plan
    #: The directions that end, and the kinds of those that are started for them.
    old: list[Direction]
    wanted: list[type[SinkDirection] | type[SourceDirection]]
    #: When they end even if they have not finished: seconds, monotonic.
    deadline: float
    #: Whether the HTTP process listens anew.
    listens: bool
    #: What has changed, for people.
    what: str


class Steering:
    """What changes a pipeline while it runs. One for each supervisor, which calls `step` again and again."""

    def __init__(self, supervisor: "Supervisor", reload: ReloadInputs | None) -> None:
        """`reload`: what the configuration is read from; None: it cannot be read again."""
        self._supervisor = supervisor
        self._logger = supervisor.logger
        self.reload = Reload(reload)
        self._replacement: Replacement | None = None
        self._drain_at = 0.0
        self._hangups = 0
        self._has_terminal = has_terminal()
        #: Requests of commands so far, and why the last one failed.
        self._control_number, self._control_error = 0, ""

    @property
    def is_draining(self) -> bool:
        """Whether a reload waits until directions have finished what is in flight."""
        return self._replacement is not None

    def hang_up(self, _signal: int, _frame: object) -> None:
        """Handles SIGHUP."""
        self._hangups += 1

    def control(self, request: ControlRequest) -> None:
        """Does what a command has asked for."""
        controls, self._control_error = applied(request, self._supervisor.plan.controls), ""
        if request.action == "skip" and self._supervisor.config.network.listen:
            controls = self._supervisor.plan.controls
            self._control_error = ("encoders on other machines cannot skip messages; stop the pipeline and use "
                                   "pipeline offsets set")
        if request.keep or request.action == "resume":
            try:
                keep_pauses(self._supervisor.config, controls.paused)
            except PipelineError as error:
                self._control_error = str(error)
        self._control_number += 1
        if controls != self._supervisor.plan.controls:
            self._supervisor.use(replace(self._supervisor.plan, controls=controls), self._supervisor.directions)
            level = self._supervisor.plan.log_level(SUPERVISOR)
            self._logger.setLevel(level)
            self._logger.warning("an operator has %s; paused: %s; level of the log: %s", _ACTS[request.action],
                                 "; ".join(labels(controls.paused)) or "nothing", level.lower())

    def status(self) -> ControlsStatus:
        """What an operator has changed, for whom it is published."""
        controls = self._supervisor.plan.controls
        return ControlsStatus(self._control_number, self._control_error, labels(controls.paused), controls.log_level)

    def step(self) -> None:
        """Acts on SIGHUP, and with `--watch` on changed files: reads the configuration again, and applies it."""
        now = time.monotonic()
        if self._hangups and self._has_terminal and not has_terminal():
            self._supervisor.stop()  # the terminal was closed
        if self._supervisor.is_stopping:
            return
        if self._hangups or self.reload.has_changed(now):
            self._hangups = 0
            self._begin_reload(now)
        if (checked := self.reload.take(now)) is not None:
            self._apply(checked, now)
        if self._replacement is not None:
            self._replace(self._replacement, now)

    def _begin_reload(self, now: float) -> None:
        if self._supervisor.service.is_ready:
            self._supervisor.service.reloading()
        if self.reload.impossible:
            self.reload.number += 1
            self._reloaded("failed", [self.reload.impossible])
        elif self._replacement is None:
            if problem := self.reload.begin(self._supervisor.fork, self._supervisor.plan, now):
                self._reloaded("failed", [problem])
        else:
            self.reload.repeat = True

    def _reloaded(self, outcome: Outcome, lines: list[str]) -> None:
        """A reload has ended: logs it, and tells the service manager."""
        level, end = (logging.INFO, "") if outcome == "done" else \
            (logging.ERROR, "; the pipeline goes on with the configuration that it has")
        for line in lines[:-1]:
            self._logger.log(level, "%s", line)
        self._logger.log(level, "reload: %s%s", lines[-1], end)
        self.reload.finish(outcome, lines)
        if self._supervisor.service.is_ready:
            self._supervisor.service.ready(f"reload: {lines[-1]}{end}")
        if self.reload.repeat:
            self.reload.repeat = False
            self._hangups += 1

    def _apply(self, checked: Checked, now: float) -> None:
        """Uses what was read: at once, and for what cannot change while it runs, after a drain."""
        new = checked.config
        if new is None:
            self._reloaded("failed", checked.problems)
            return
        try:
            self.reload.lock(new, self._supervisor.config)
        except PipelineError as error:
            self._reloaded("failed", [str(error)])
            return
        hide(secrets_of(new))
        keys, changes = changed_keys(self._supervisor.config, new), changes_between(self._supervisor.config, new)
        plan = self._plan_of(new)
        affected = {SinkDirection: changes.sinks, SourceDirection: changes.sources}
        old = [direction for direction in self._supervisor.directions if affected[type(direction)]]
        wanted = [make for make in DIRECTIONS if affected[make] and make.stages(plan)]
        use_log_options(self._logger, plan.log_level(SUPERVISOR), new.pipeline.log_format)
        self._supervisor.restarts.limit(new.pipeline.max_restarts, new.pipeline.restart_window_ms / 1000)
        what = f"changed: {', '.join(keys)}" if keys else "the configuration has not changed"
        if not old and not wanted:
            if changes.http:
                self._supervisor.http.listen(new)
            self._supervisor.use(plan, self._supervisor.directions)
            self._reloaded("done", [what])
            return
        self._logger.info("reload: finishing what is in flight%s, at most %g s", "".join(one.label for one in old),
                         new.pipeline.drain_timeout_ms / 1000)
        self._replacement = Replacement(plan, old, wanted, now + new.pipeline.drain_timeout_ms / 1000, changes.http,
                                        what)

    def _plan_of(self, config: Config) -> Plan:
        pipeline, before = config.pipeline, self._supervisor.config.pipeline
        encoders = self._supervisor.plan.encoders if pipeline.workers == before.workers else \
            pipeline.workers or len(os.sched_getaffinity(0))
        controls = replace(self._supervisor.plan.controls, log_level="")
        return replace(self._supervisor.plan, config=config, controls=controls, reload=self.reload.number,
                       encoders=encoders, writers=pipeline.writers, ingests=pipeline.readers)

    def _replace(self, replacement: Replacement, now: float) -> None:
        """Drains the directions that cannot change while they run; then starts those of the new plan."""
        if now >= self._drain_at:
            self._drain_at = now + DRAIN_REPEAT_SECONDS
            for direction in replacement.old:
                direction.link.send(common.Drain())
        if not all(direction.drained for direction in replacement.old) and now < replacement.deadline:
            return
        self._replacement = None
        for direction in replacement.old:
            self._logger.info("%s", direction.summary()[1])
            self._supervisor.end(direction)
        if replacement.listens:
            self._supervisor.http.listen(replacement.plan.config)
        elif {type(direction) for direction in replacement.old} != set(replacement.wanted):
            self._supervisor.http.restart()  # it listens to other coordinators
        directions = {type(direction): direction for direction in self._supervisor.directions}
        kept = [direction for direction in self._supervisor.directions if direction not in replacement.old]
        # Pauses and skips may have changed since it was made.
        controls = replace(self._supervisor.plan.controls, log_level="")
        plan = replace(replacement.plan, controls=controls)
        self._supervisor.use(plan, kept)
        started: list[Direction] = []
        for make in replacement.wanted:
            if (before := directions.get(make)) is not None:
                before.replace(self._supervisor.next_plan_of(before.coordinator))
            started.append(before or make(plan))
        self._supervisor.use(plan, [*kept, *started])
        self._supervisor.start_directions(started)
        self.reload.lock_only(plan.config)
        self._reloaded("done", [replacement.what])
