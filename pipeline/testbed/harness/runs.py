"""A running `pipeline start`: its processes, its log, and the status that it publishes."""

import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Generic, Protocol, Self, TypeVar

import zmq

from pipeline.errors import PipelineError
from pipeline.interrupts import signals_blocked
from pipeline.sockets.endpoints import Endpoints
from pipeline.testbed.harness.procfs import is_alive
from pipeline.testbed.harness.waiting import SOON_SECONDS, wait_until
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire

#: Characters of a log's end that an error shows.
SHOWN_CHARACTERS = 3_000
NOTHING: Mapping[str, str] = MappingProxyType({})


class AnyStatus(Protocol):
    """What the status of both directions has."""

    @property
    def pids(self) -> Mapping[str, int]:
        """name -> pid of the processes that have reported."""


S = TypeVar("S", bound=AnyStatus)


class PipelineRun(ABC, Generic[S]):
    """A pipeline that runs while a block lasts, or from `start` to `close`. Use `SinkRun` or `SourceRun`."""

    def __init__(self, folder: Path, config: str, arguments: Iterable[str] = (),
                 environ: Mapping[str, str] = NOTHING, prefix: Iterable[str] = ()) -> None:
        """Writes `config` to `folder`/pipeline.toml; the log is in `folder`/pipeline.log. Starts nothing yet.

        Its `runtime_dir` has to be `folder`/run. `environ` is added to the environment; the command
        begins with `prefix`, a command that runs another one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = folder / "pipeline.toml"
        self.log_file = folder / "pipeline.log"
        self.config.write_text(config)
        self.arguments = list(arguments)
        self.prefix = list(prefix)
        self.environ = {**os.environ, **environ}
        self.status: S | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._subscriber: zmq.Socket[bytes] | None = None

    @staticmethod
    @abstractmethod
    def endpoint(endpoints: Endpoints) -> str:
        """Where the status is published."""

    @staticmethod
    @abstractmethod
    def decode(frame: bytes) -> S:
        """A status."""

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The supervisor. Raises PipelineError before the first `start`."""
        if self._process is None:
            raise PipelineError("the pipeline was not started")
        return self._process

    def start(self, *arguments: str) -> None:
        """Starts it (again), with further arguments of `pipeline start`."""
        if self._subscriber is not None:
            self._subscriber.close()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._subscriber = context.socket(zmq.SUB)
        self._subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        self._subscriber.connect(self.endpoint(Endpoints(str(self.folder / "run"))))
        self.status = None
        with self.log_file.open("ab") as log, signals_blocked():
            self._process = subprocess.Popen([*self.prefix, sys.executable, "-m", "pipeline", "start", "-c",
                                              str(self.config), *self.arguments, *arguments], stderr=log,
                                             env=self.environ)

    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text()

    def log_end(self) -> str:
        """The last lines of the log, for an error."""
        return f"the log ends with:\n{self.log()[-SHOWN_CHARACTERS:]}"

    def watch(self, seconds: float) -> S | None:
        """Waits at most `seconds` for a newer status. Raises PipelineError when the pipeline has ended."""
        ended = self.process.poll() is not None
        if self._subscriber is not None and self._subscriber.poll(round(seconds * 1000) if not ended else 0):
            self.status = self.decode(self._subscriber.recv())
        elif ended:
            raise PipelineError(f"the pipeline ended with exit code {self.process.returncode}; {self.log_end()}")
        return self.status

    def wait_for(self, condition: Callable[[S], object], what: str = "the pipeline",
                 seconds: float = SOON_SECONDS) -> S:
        """The first new status for which `condition` holds. Raises PipelineError after `seconds`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            before = self.status
            status = self.watch(0.1)
            if status is not None and status is not before and condition(status):
                return status
        raise PipelineError(f"timed out after {seconds:g} s waiting for {what}; last status: {self.status}; "
                            f"{self.log_end()}")

    def wait_for_log(self, text: str) -> None:
        """Returns once the log has `text`."""
        try:
            wait_until(lambda: text in self.log(), f'"{text}" in the log')
        except PipelineError as error:
            raise PipelineError(f"{error}; {self.log_end()}") from None

    def pids(self) -> dict[str, int]:
        """name -> pid of all processes of the pipeline, the supervisor's too."""
        return {**(self.status.pids if self.status else {}), "supervisor": self.process.pid}

    def kill(self, name: str) -> None:
        """kill -9 of one process by its name; returns once it has ended."""
        pid = self.wait_for(lambda status: name in status.pids, name).pids[name]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), f"the end of {name}")

    def stop(self, seconds: float = SOON_SECONDS) -> int:
        """SIGTERM; the exit code. Raises PipelineError when it has not ended after `seconds`."""
        self.process.terminate()
        return self.ends(seconds)

    def ends(self, seconds: float = SOON_SECONDS) -> int:
        """The exit code, once it has ended. Raises PipelineError after `seconds`."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise PipelineError(f"still running after {seconds:g} s; {self.log_end()}") from None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it at once, if it runs; returns once its processes have ended, too, as far as they are known."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            pids = self.status.pids.values() if self.status else ()
            wait_until(lambda: not any(map(is_alive, pids)), "the end of its processes")


def is_settled(status: wire.Status, messages: int) -> bool:
    """Whether so many messages were read, and are settled.

    Points are not counted: several messages of one series and time are one (`merge_duplicates`).
    """
    return status.read >= messages and status.in_flight == 0


class SinkRun(PipelineRun[wire.Status]):
    """A pipeline that writes to databases."""

    @staticmethod
    def endpoint(endpoints: Endpoints) -> str:
        """Where the coordinator publishes its status."""
        return endpoints.status

    @staticmethod
    def decode(frame: bytes) -> wire.Status:
        """A status."""
        return wire.decode_status(frame)

    def settles(self, messages: int, seconds: float = SOON_SECONDS) -> wire.Status:
        """Waits until so many messages are committed, and nothing is in flight."""
        return self.wait_for(lambda status: sum(p.committed + 1 for p in status.partitions) >= messages
                             and status.in_flight == 0, f"{messages} messages to be committed", seconds)


class SourceRun(PipelineRun[source_wire.SourceStatus]):
    """A pipeline that reads databases."""

    @staticmethod
    def endpoint(endpoints: Endpoints) -> str:
        """Where the source coordinator publishes its status."""
        return endpoints.source_status

    @staticmethod
    def decode(frame: bytes) -> source_wire.SourceStatus:
        """A status."""
        return source_wire.decode_status(frame)
