"""The HTTP process from the supervisor's view. Nothing that becomes of it stops the pipeline."""

import logging
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

import msgspec

from pipeline.backoff import Backoff
from pipeline.config.controls import ControlRequest
from pipeline.config.http_schema import HttpConfig
from pipeline.config.plan import Plan
from pipeline.config.schema import Config
from pipeline.errors import PipelineError
from pipeline.http.listeners import Listeners
from pipeline.plan_updates import PlanSender
from pipeline.supervisor.child import HTTP, run_http
from pipeline.supervisor.fork_server import ForkServer

#: Pauses before it is started again, seconds; one that has lived so long starts from the first again.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, STEADY_SECONDS = 0.25, 30.0, 60.0

#: A new one has connected by then, and received its first message, seconds.
FIRST_SECONDS = 1.0


class HttpChild:
    """Starts the HTTP process, and again when it has died."""

    def __init__(self, config: Config, logger: logging.Logger) -> None:
        """Listens from now on. Raises PipelineError if that is not possible."""
        self.listeners = Listeners(config)
        if self.listeners.warning:
            logger.warning("%s", self.listeners.warning)
        if self.listeners.port:
            scheme = "https" if config.http.cert_file else "http"
            logger.info("health, metrics and status at %s://%s", scheme, self.listeners.address)
        self._logger = logger
        self._process: ForkServerProcess | None = None
        self._reasons: Connection | None = None
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, 2.0, LONGEST_PAUSE_SECONDS, lambda: 1.0)
        #: When it was started, and is to be started again: seconds, monotonic.
        self._started = 0.0
        self._due = float("-inf")
        self._plans = PlanSender()
        #: How often it has died; when it was started last, seconds since 1970; and how it ended.
        self.deaths = 0
        #: Why it failed, if it has sent the reason.
        self.reason = ""
        self.started_at = 0.0
        self.last_death = ""

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return self._process.pid or 0 if self._process is not None else 0

    @property
    def sentinel(self) -> int | None:
        """Becomes readable when it has ended; None while it does not run."""
        return self._process.sentinel if self._process is not None else None

    @property
    def waits(self) -> bool:
        """Whether it is to be started, or was just started, and waits for the first message."""
        return self._process is None or time.monotonic() - self._started < FIRST_SECONDS

    def start_due(self, fork: ForkServer, plan: Plan) -> bool:
        """Starts it if it does not run and its pause is over. Whether it did."""
        if self._process is not None or time.monotonic() < self._due:
            return False
        sockets = [*self.listeners.local, *self.listeners.port]
        try:
            self._process, self._reasons = fork.start(HTTP, run_http, sockets, len(self.listeners.local), plan)
        except (OSError, EOFError) as error:
            self._logger.warning("%s cannot be started; retrying: %s", HTTP, error)
            self._due = time.monotonic() + self._backoff.next()
            return False
        self._started, self.started_at = time.monotonic(), time.time()
        return True

    def ended(self, why: str) -> None:
        """It has ended: how."""
        self.requests()
        reason, self.reason = self.reason, ""
        assert self._process is not None
        self.deaths += 1
        self._process.join()
        self._process = self._reasons = None
        if time.monotonic() - self._started >= STEADY_SECONDS:
            self._backoff.reset()
        pause = self._backoff.next()
        self._due = time.monotonic() + pause
        self.last_death = f"{why}{': ' if reason else ''}{reason}"
        self._logger.warning("%s died (%s); the pipeline goes on; restarting it in %.2g s", HTTP, self.last_death,
                             pause)

    @property
    def exitcode(self) -> int | None:
        """How it has ended; None while it runs."""
        return self._process.exitcode if self._process is not None else None

    @property
    def connection(self) -> Connection | None:
        """Becomes readable when it has sent something; None while it does not run."""
        return self._reasons

    def requests(self) -> list[ControlRequest]:
        """What commands have asked for."""
        found = []
        try:
            while self._reasons is not None and self._reasons.poll(0):
                message = self._reasons.recv()
                if isinstance(message, ControlRequest):
                    found.append(message)
                else:
                    self.reason = str(message)
        except (EOFError, OSError):  # it has ended
            pass
        return found

    def listen(self, config: Config) -> None:
        """Listens as a changed configuration says; without a port, and with an error in the log, if that fails."""
        self.listeners.close()
        try:
            self.listeners = Listeners(config)
        except PipelineError as error:
            self._logger.error("%s; the pipeline goes on without", error)
            self.listeners = Listeners(msgspec.structs.replace(config, http=HttpConfig(listen="")))
        if self.listeners.warning:
            self._logger.warning("%s", self.listeners.warning)
        self.restart()

    def use(self, plan: Plan) -> None:
        """Shows a new plan from now on."""
        if self._reasons is not None:
            self._plans.send(self._reasons, plan)

    def restart(self) -> None:
        """Kills it; it is to be started again at once."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._reasons = None
        self._due = float("-inf")

    def close(self) -> None:
        """Kills it, and removes its sockets."""
        self.restart()
        self.listeners.close()
