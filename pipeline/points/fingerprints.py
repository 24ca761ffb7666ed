"""Fingerprints of recently sent points: a bounded map of 64-bit hashes, point to content. Pure."""

import heapq
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

_FINGERPRINT = struct.Struct("<qQQ")
_KNOWN = struct.Struct("<QQ")
#: Size of a fingerprint as packed by `pack`, and by `Fingerprints.between`.
FINGERPRINT_BYTES, KNOWN_BYTES = _FINGERPRINT.size, _KNOWN.size


class Fingerprint(NamedTuple):
    """A point that was sent."""

    #: Nanoseconds since 1970.
    time: int
    #: Hash of series and time, and of the field if each field has its own message.
    point: int
    #: Hash of the whole message.
    content: int


#: Point hash -> time and content hash.
Known: TypeAlias = dict[int, tuple[int, int]]


def fingerprints_of(known: Known) -> Iterator[Fingerprint]:
    """The fingerprints of a map, in no order."""
    return (Fingerprint(time, point, content) for point, (time, content) in known.items())


def known_from(prints: Iterable[Fingerprint]) -> Known:
    """The map of fingerprints; the last one of a point wins."""
    return {point: (time, content) for time, point, content in prints}


def pack(prints: Iterable[Fingerprint]) -> bytes:
    """24 bytes each, little-endian."""
    return b"".join(_FINGERPRINT.pack(*one) for one in prints)


def unpack(packed: bytes) -> list[Fingerprint]:
    """Reverses `pack`. Raises ValueError for a partial fingerprint."""
    if len(packed) % _FINGERPRINT.size:
        raise ValueError("not a whole number of fingerprints")
    return [Fingerprint(*one) for one in _FINGERPRINT.iter_unpack(packed)]


def unpack_known(packed: bytes) -> dict[int, int]:
    """Point hash -> content hash; reverses `Fingerprints.between`."""
    return {point: content for point, content in _KNOWN.iter_unpack(packed)}


class Fingerprints:
    """At most `limit` points. Beyond that the oldest are evicted, and sent again if they are read again."""

    def __init__(self, limit: int, prints: Iterable[Fingerprint] = ()) -> None:
        self.limit = limit
        self._known: Known = {}
        #: Heap of (time, point hash); each point once.
        self._heap: list[tuple[int, int]] = []
        #: Points evicted so far.
        self.evicted = 0
        self.add(prints)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, prints: Iterable[Fingerprint]) -> None:
        """Adds points; the last content of each wins."""
        for time, point, content in prints:
            if point not in self._known:
                heapq.heappush(self._heap, (time, point))
            self._known[point] = time, content
        while len(self._known) > self.limit:
            del self._known[heapq.heappop(self._heap)[1]]
            self.evicted += 1

    def prune(self, before: int) -> None:
        """Removes points before the time `before`, which will not be read again."""
        while self._heap and self._heap[0][0] < before:
            del self._known[heapq.heappop(self._heap)[1]]

    def between(self, start: int, end: int) -> bytes:
        """Packed point and content hashes of times in `[start, end)`, 16 bytes each."""
        return b"".join(_KNOWN.pack(point, content) for point, (time, content) in self._known.items()
                        if start <= time < end)

    def known(self) -> Known:
        """A copy of the map."""
        return self._known.copy()

    def prints(self) -> list[Fingerprint]:
        """All fingerprints, oldest first."""
        return sorted(fingerprints_of(self._known))
