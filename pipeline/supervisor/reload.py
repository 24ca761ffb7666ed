"""Reads the configuration again while the pipeline runs, and says what has to be done about it.

It is read and checked in a process of its own, forked from the fork server: a check that hangs, or a module of the user
that fails, does not harm the supervisor. A configuration with a mistake changes nothing.
"""

import contextlib
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

import setproctitle
from msgspec import Struct

from pipeline.config.inputs import ConfigInputs, files_of
from pipeline.config.plan import Plan
from pipeline.config.schema import Config
from pipeline.config.secrets import secrets_of
from pipeline.errors import PipelineError
from pipeline.logs import clean, setup_logging
from pipeline.supervisor.fork_server import ForkServer, leave_fork_server
from pipeline.wire.supervisor import Outcome, ReloadStatus

#: Longest time for reading and checking, seconds.
TIMEOUT_SECONDS: Final = 60.0
#: Seconds between two looks at the files, with `--watch`.
WATCH_SECONDS: Final = 1.0


class ReloadInputs(Struct, frozen=True):
    """What the configuration is read from."""

    inputs: ConfigInputs
    #: Reads and checks it; the argument is the configuration that runs. Raises PipelineError. Sent to the process.
    load: Callable[[Config], Config]
    #: Takes the locks that it needs, in this process. Raises PipelineError if another pipeline has them.
    lock: Callable[[Config], None]
    #: Does the same, and releases all other locks.
    lock_only: Callable[[Config], None]
    #: Reload when the files change.
    watch: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """Absolute paths of its files and folders."""
        return self.inputs.files


class Checked(Struct, frozen=True):
    """The configuration that was read, or every mistake in it."""

    config: Config | None
    problems: list[str] = []


def check_in_child(load: Callable[[Config], Config], plan: Plan, answer: Connection) -> None:
    """Reads the configuration in this process, which was forked for it, and sends a Checked. Does not return."""
    leave_fork_server()
    setproctitle.setproctitle("pipeline: reload")
    setup_logging("reload", plan.config.pipeline.log_level, secrets_of(plan.config), plan.config.pipeline.log_format)
    try:
        answer.send(Checked(load(plan.config)))
    except PipelineError as error:
        answer.send(Checked(None, [clean(line) for line in str(error).splitlines()]))
    except Exception as error:  # a fault of ours must not end the pipeline that runs
        answer.send(Checked(None, [clean(f"{type(error).__name__}: {error}; this is a fault in the pipeline, please "
                                         "report it")]))
    os._exit(0)


def has_terminal() -> bool:
    """Whether this process has a terminal, which may have been closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Reload:
    """The reload that is under way, and the outcome of the last one."""

    def __init__(self, given: ReloadInputs | None) -> None:
        """Without `given`, nothing can be read again."""
        self._given = given
        self._process: ForkServerProcess | None = None
        self._answer: Connection | None = None
        self._deadline = 0.0
        self._watched = _signature(given) if given and given.watch else None
        self._seen = self._watched
        self._look_at = 0.0
        #: Reloads that were asked for, the outcome of the last one, and its lines for people.
        self.number = 0
        self.outcome: Outcome = "none"
        self.lines: list[str] = []
        #: Another reload was asked for before this one has ended.
        self.repeat = False

    @property
    def sentinel(self) -> Connection | None:
        """Becomes readable when the configuration has been read."""
        return self._answer

    @property
    def impossible(self) -> str:
        """Why nothing can be read again; "" if it can."""
        if self._given is None:
            return "this pipeline ends by itself, and does not read its configuration again"
        return "" if self._given.inputs.can_be_read_again else \
            "the configuration was read from standard input; give it as a file with -c FILE"

    def lock(self, new: Config, running: Config) -> None:
        """Takes the locks that a new configuration needs, beside those that it has. Raises PipelineError."""
        assert self._given is not None
        try:
            self._given.lock(new)
        except PipelineError:
            self.lock_only(running)
            raise

    def lock_only(self, running: Config) -> None:
        """Releases the locks that the configuration in use does not need."""
        assert self._given is not None
        with contextlib.suppress(PipelineError):
            self._given.lock_only(running)

    def begin(self, fork: ForkServer, plan: Plan, now: float) -> str:
        """Starts to read the configuration. Does nothing while one is being read. Returns why it cannot, or ""."""
        if self._process is not None:
            self.repeat = True
            return ""
        self.number += 1
        self.outcome, self.lines = "running", []
        assert self._given is not None
        try:
            self._process, self._answer = fork.start("reload", check_in_child, self._given.load, plan)
        except (OSError, EOFError) as error:
            return f"no process can be started to read the configuration: {error}; try again"
        self._deadline = now + TIMEOUT_SECONDS
        return ""

    def take(self, now: float) -> Checked | None:
        """What was read; None while nothing is being read, or not yet complete."""
        if self._process is None or self._answer is None:
            return None
        try:
            if self._answer.poll(0):
                found: Checked | None = self._answer.recv()
            else:
                found = Checked(None, ["reading the configuration took too long"]) if now > self._deadline else None
        except (EOFError, OSError):
            found = Checked(None, ["the process that reads the configuration has died"])
        if found is not None:
            self._process.kill()
            self._process.join()
            self._answer.close()
            self._process = self._answer = None
        return found

    def finish(self, outcome: Outcome, lines: list[str]) -> None:
        """The end of a reload."""
        self.outcome, self.lines = outcome, lines

    def has_changed(self, now: float) -> bool:
        """With `--watch`: whether the files have changed since they were read last, and stay as they are now."""
        if self._given is None or self._watched is None or now < self._look_at:
            return False
        self._look_at = now + WATCH_SECONDS
        before, self._seen = self._seen, _signature(self._given)
        if self._seen != before or self._seen == self._watched:
            return False
        self._watched = self._seen
        return True

    def status(self) -> ReloadStatus:
        """What is published of it."""
        return ReloadStatus(self.number, self.outcome, self.lines)

    def close(self) -> None:
        """Ends what is under way."""
        if self._process is not None:
            self._process.kill()
            self._process.join()


def _signature(given: ReloadInputs) -> tuple[tuple[str, int, int, int], ...]:
    """Changes when one of the files does, or when one is added to a folder or removed."""
    found = []
    for path in files_of(given.inputs.paths, []):
        try:
            about = Path(path).stat()
        except OSError:
            continue
        found.append((path, about.st_mtime_ns, about.st_size, about.st_ino))
    return tuple(found)
