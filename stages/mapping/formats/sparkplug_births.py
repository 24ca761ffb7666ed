"""The births of Sparkplug's edge nodes and devices: which metric each alias stands for, and its data type.

They are kept in memory, and, in a folder, for the other encoders and for the next start.
"""

import fcntl
import hashlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from msgspec import Struct

from stages.mapping.formats.errors import BadFormat

#: Births of one node or device that are kept: messages that are read again may be older than the last one.
_KEPT: Final = 4
#: Nodes and devices in memory, and their metrics, at most; those that were used longest ago are forgotten.
_MAX_SENDERS: Final = 20_000
_MAX_METRICS: Final = 500_000
#: Bytes of the files of a folder, at most, beside what other encoders have added since the start: names of nodes come
#: from messages, and must not fill a disk.
_MAX_BYTES: Final = 1_000_000_000
#: How long, in seconds, a message waits for a birth that another encoder may be reading, and after which time it may
#: wait for the same one again.
_WAIT: Final = 1.0
_STEP: Final = 0.02
_WAIT_AGAIN: Final = 60.0


class FolderFull(Exception):
    """No more births are stored."""


class Sender(NamedTuple):
    """An edge node, or a device of one."""

    group: str
    node: str
    #: "" for the node itself.
    device: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, self))


class Birth(Struct, frozen=True):
    """What a birth says of its metrics."""

    #: Milliseconds since 1970.
    time: int
    #: Alias -> name.
    names: dict[int, str]
    #: Name -> data type.
    types: dict[str, int]


class _Known:
    """The births of one sender, the oldest first."""

    def __init__(self) -> None:
        self.births: list[Birth] = []
        #: Of the file that they were read from; 0 if there was none.
        self.modified = 0

    @property
    def size(self) -> int:
        """Number of metrics."""
        return sum([len(birth.types) + 1 for birth in self.births])

    def add(self, birth: Birth) -> bool:
        """Whether it was new."""
        if birth in self.births:
            return False
        others = [other for other in self.births if other.time != birth.time]
        self.births = sorted([*others, birth], key=lambda one: one.time)[-_KEPT:]
        return True

    def at(self, moment: int) -> Birth | None:
        """The last birth before a moment; the first one, if all are later."""
        found = None
        for birth in self.births:
            if found is None or birth.time <= moment:
                found = birth
        return found


class Births:
    """The births that are known to one encoder. Not thread-safe."""

    def __init__(self, folder: str, clock: Callable[[], float] = time.monotonic,
                 sleep: Callable[[float], None] = time.sleep) -> None:
        """`folder`: "" for none. Raises BadFormat if it cannot be used."""
        self._folder = folder
        self._clock, self._sleep = clock, sleep
        self._known: OrderedDict[Sender, _Known] = OrderedDict()
        self._size = 0
        self._waited: dict[Sender, float] = {}
        self._bytes = 0
        if folder:
            try:
                os.makedirs(folder, exist_ok=True)
                self._bytes = sum([entry.stat().st_size for entry in os.scandir(folder)])
                with open(os.path.join(folder, "lock"), "ab"):
                    pass
            except OSError as error:
                raise BadFormat("sparkplug_births", f'"{folder}" cannot be written to: {error.strerror}') from None

    def add(self, sender: Sender, birth: Birth) -> None:
        """Keeps a birth. Raises OSError and FolderFull where it cannot be stored."""
        known = self._of(sender)
        before = known.size
        if not known.add(birth):
            return
        if self._folder:
            with open(os.path.join(self._folder, "lock"), "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._read(sender, known)
                known.add(birth)
                self._write(sender, known)
        self._grown(known.size - before)

    def at(self, sender: Sender, moment: int) -> Birth | None:
        """The birth that a message of this time belongs to; None if there is none."""
        known = self._of(sender)
        if self._folder:
            before = known.size
            self._read(sender, known)
            self._grown(known.size - before)
        return known.at(moment)

    def wait(self, sender: Sender, is_enough: Callable[[], bool]) -> bool:
        """Waits a little for what another encoder may be about to store. Whether it is enough now."""
        now = self._clock()
        if not self._folder or now - self._waited.get(sender, -_WAIT_AGAIN) < _WAIT_AGAIN:
            return False
        while self._clock() - now < _WAIT:
            self._sleep(_STEP)
            if is_enough():
                return True
        if len(self._waited) >= _MAX_SENDERS:
            self._waited.clear()
        self._waited[sender] = self._clock()
        return False

    def _of(self, sender: Sender) -> _Known:
        known = self._known.get(sender)
        if known is None:
            known = self._known[sender] = _Known()
        self._known.move_to_end(sender)
        return known

    def _grown(self, size: int) -> None:
        self._size += size
        while len(self._known) > 1 and (self._size > _MAX_METRICS or len(self._known) > _MAX_SENDERS):
            self._size -= self._known.popitem(last=False)[1].size

    def _path(self, sender: Sender) -> str:
        # Names of nodes may hold anything.
        return os.path.join(self._folder, hashlib.sha256("\0".join(sender).encode()).hexdigest()[:40] + ".json")

    def _read(self, sender: Sender, known: _Known) -> None:
        """Adds what the file has, if it has changed."""
        path = self._path(sender)
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            modified = os.stat(path).st_mtime_ns
            if modified == known.modified:
                return
            with open(path, encoding="utf-8") as file:
                for birth in json.load(file)["births"]:
                    known.add(_birth(birth))
            known.modified = modified

    def _write(self, sender: Sender, known: _Known) -> None:
        path = self._path(sender)
        content = {**sender._asdict(), "births": [{"time": birth.time, "names": birth.names, "types": birth.types}
                                                  for birth in known.births]}
        text = json.dumps(content)
        with suppress(OSError):
            self._bytes -= os.stat(path).st_size
        self._bytes += len(text)
        if self._bytes > _MAX_BYTES:
            raise FolderFull
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(f"{path}.new", path)
        known.modified = os.stat(path).st_mtime_ns


def _birth(stored: Mapping[str, Any]) -> Birth:
    return Birth(int(stored["time"]), {int(alias): str(name) for alias, name in stored["names"].items()},
                 {str(name): int(kind) for name, kind in stored["types"].items()})
