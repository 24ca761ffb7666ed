"""A message that kills: whatever process has it in hand gets a signal, as if a library had crashed or hung on it."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from types import TracebackType

from pipeline.testbed.harness.waiting import wait_until
from pipeline.wire.sink import Range
from pipeline.work_file import work_of
from tests.support.sinks import Sink


def children(pid: int) -> list[int]:
    """The processes that a process has started, or forked, itself."""
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def pid_of(sink: Sink, name: str) -> int | None:
    """The process of a name; None while there is none."""
    for server in children(sink.process.pid):
        for pid in children(server):
            try:
                if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == f"pipeline: {name}".encode():
                    return pid
            except (FileNotFoundError, ProcessLookupError):
                continue
    return None


def kill(sink: Sink, name: str) -> None:
    """kill -9 of a process, once it is there."""
    wait_until(lambda: pid_of(sink, name) is not None, name)
    pid = pid_of(sink, name)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


class Killer:
    """Signals processes of a pipeline while they have certain offsets in hand; a context, on a thread of its own."""

    def __init__(self, sink: Sink, names: list[str], offsets: set[int],
                 number: signal.Signals = signal.SIGKILL, watcher: int = 0) -> None:
        """`watcher`: of a remote encoder, the process that watches it."""
        self.sink = sink
        self.watcher = watcher
        self.names = names
        self.offsets = offsets
        self.number = number
        #: (process, range) of each signal.
        self.signalled: list[tuple[int, Range]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def has_signalled(self, times: int) -> bool:
        """Whether it has done so that often."""
        return len(self.signalled) >= times

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        folder = str(self.sink.folder / "run")
        while not self._stopping.is_set():
            folder = self._remote_folder() if self.watcher else folder
            for name in self.names:
                work = self._poisoned(folder, name)
                if work is None:
                    continue
                pid = next(iter(children(self.watcher)), None) if self.watcher else pid_of(self.sink, name)
                if pid is not None and self._poisoned(folder, name) == work and (pid, work) not in self.signalled:
                    try:
                        os.kill(pid, self.number)
                    except ProcessLookupError:
                        continue
                    self.signalled.append((pid, work))
            time.sleep(0.0005)

    def _remote_folder(self) -> str:
        """Where a remote encoder writes what it has in hand, by the memory that it has mapped; "" while it has none."""
        for pid in children(self.watcher):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                    if line.endswith(".work"):
                        return str(Path(line.split(maxsplit=5)[5]).parent)
        return ""

    def _poisoned(self, folder: str, name: str) -> Range | None:
        return next((work for work in work_of(folder, name)
                     if any(work.first <= one <= work.last for one in self.offsets)), None)
