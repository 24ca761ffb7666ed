"""Which points of the recent past have been sent, and with which content: a bounded map of 64-bit hashes. Pure."""

import heapq
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

_PRINT = struct.Struct("<qQQ")
_KNOWN = struct.Struct("<QQ")
#: Of a fingerprint as `pack` and as `Fingerprints.between` pack it.
PRINT_BYTES, KNOWN_BYTES = _PRINT.size, _KNOWN.size


class Print(NamedTuple):
    """A point that was sent."""

    #: Nanoseconds since 1970.
    time: int
    #: Hash of the series, the time, and, with one message a field, the field.
    point: int
    #: Hash of the whole message.
    content: int


#: point -> time and content, of points that were sent.
Known: TypeAlias = dict[int, tuple[int, int]]


def prints_of(known: Known) -> Iterator[Print]:
    """The points of a map, in no order."""
    return (Print(time, point, content) for point, (time, content) in known.items())


def known_of(prints: Iterable[Print]) -> Known:
    """The map of points; of several with the same hash the last counts."""
    return {point: (time, content) for time, point, content in prints}


def pack(prints: Iterable[Print]) -> bytes:
    """24 bytes each, little-endian."""
    return b"".join(_PRINT.pack(*one) for one in prints)


def unpack(packed: bytes) -> list[Print]:
    """What `pack` packed. Raises ValueError when it isn't whole."""
    if len(packed) % _PRINT.size:
        raise ValueError("not a whole number of fingerprints")
    return [Print(*one) for one in _PRINT.iter_unpack(packed)]


def unpack_known(packed: bytes) -> dict[int, int]:
    """point -> content, of what `Fingerprints.between` gave."""
    return {point: content for point, content in _KNOWN.iter_unpack(packed)}


class Fingerprints:
    """At most `limit` points; where there are more, the oldest are forgotten, and sent again if they are read again."""

    def __init__(self, limit: int, prints: Iterable[Print] = ()) -> None:
        self.limit = limit
        self._known: Known = {}
        #: (time, point), the oldest first; each point once.
        self._heap: list[tuple[int, int]] = []
        #: Forgotten for want of room, so far.
        self.forgotten = 0
        self.add(prints)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, prints: Iterable[Print]) -> None:
        """Remembers points; the last content of each counts."""
        for time, point, content in prints:
            if point not in self._known:
                heapq.heappush(self._heap, (time, point))
            self._known[point] = time, content
        while len(self._known) > self.limit:
            del self._known[heapq.heappop(self._heap)[1]]
            self.forgotten += 1

    def prune(self, before: int) -> None:
        """Forgets what is older than `before`: it won't be read again."""
        while self._heap and self._heap[0][0] < before:
            del self._known[heapq.heappop(self._heap)[1]]

    def between(self, start: int, end: int) -> bytes:
        """Points and contents of the times `[start, end)`, 16 bytes each."""
        return b"".join(_KNOWN.pack(point, content) for point, (time, content) in self._known.items()
                        if start <= time < end)

    def known(self) -> Known:
        """A copy of all of them, which costs little."""
        return self._known.copy()

    def prints(self) -> list[Print]:
        """All of them, the oldest first."""
        return sorted(prints_of(self._known))
