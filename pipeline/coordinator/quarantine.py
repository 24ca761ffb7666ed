"""Corners the message that processes die of, or hang on: its range is cut until it stands alone. Pure.

What a process worked on when it died is suspect. It is read again in parts, and a part that another process dies of is
cut again, while all else goes on. A message that stands alone at last, and that processes died of often enough, is
quarantined: nobody gets it any more, and it becomes a dead letter.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from pipeline.wire.sink import Partition, Range, Suspect

#: Parts of a suspect range: 8,000 messages are cornered in four deaths.
PARTS: Final = 20
#: Deaths of ranges with a message in them, the last of them of it alone, after which it is quarantined. A single one
#: says little: a message may come alone, and whoever kills processes by hand means none.
LEAST_DEATHS: Final = 3
#: Deaths in a row, without a batch that was settled between them, that are excused: so many it takes to corner a
#: message, twice. Where nothing else gets through, it is the process that is broken.
EXCUSED_IN_A_ROW: Final = 10


class Verdict(Struct, frozen=True):
    """What a death says."""

    #: What the range is cut into, from `first` to `last`; one part where it stays whole.
    parts: list[tuple[int, int]]
    #: How many deaths, this one and earlier ones, say nothing of the processes, but only of this range.
    excused: int = 0
    #: The message that is quarantined from now on.
    quarantined: Suspect | None = None


class Quarantine:
    """The suspect ranges of all partitions, disjoint, each by its offsets: they stay when an epoch ends."""

    def __init__(self, suspects: Iterable[tuple[Partition, Suspect]] = ()) -> None:
        self._suspects: dict[Partition, dict[int, Suspect]] = {}
        for partition, suspect in suspects:
            self._suspects.setdefault(partition, {})[suspect.first] = suspect
        self._excused_in_a_row = 0
        #: Deaths of ranges that were not suspect before.
        self._not_excused = 0

    def suspects(self, partition: Partition) -> list[Suspect]:
        """Those of a partition, in the order of their offsets."""
        return [suspect for _, suspect in sorted(self._suspects.get(partition, {}).items())]

    def all(self) -> list[tuple[Partition, Suspect]]:
        """All of them, as the constructor takes them."""
        return [(partition, suspect) for partition in self._suspects for suspect in self.suspects(partition)]

    def quarantined(self, range_: Range) -> Suspect | None:
        """The message that a range is, if it is quarantined."""
        suspect = self._suspects.get(range_.partition, {}).get(range_.first)
        return suspect if suspect is not None and suspect.quarantined and suspect.last == range_.last else None

    def died(self, range_: Range, how: str) -> Verdict:
        """A process died of a range, or hung on it, while it had it in hand: `how`, for people."""
        met = self._within(range_)
        if len(met) != 1 or met[0].first > range_.first or met[0].last < range_.last:
            # It is new, or a copy of what was cut meanwhile.
            for first, last in _gaps(range_.first, range_.last, met):
                self._put(range_.partition, [(first, last)] if met else _cut(first, last), 1, how)
            if not met:
                self._not_excused += 1
            return Verdict(self._parts(range_), self._excuse() if met else 0)
        [suspect] = met
        deaths = suspect.deaths + 1
        self._remove(range_.partition, suspect)
        for first, last in _gaps(suspect.first, suspect.last, [Suspect(range_.first, range_.last)]):
            self._put(range_.partition, [(first, last)], suspect.deaths, suspect.how)
        if range_.first < range_.last:
            self._put(range_.partition, _cut(range_.first, range_.last), deaths, how)
            return Verdict(self._parts(range_), self._excuse())
        excused = self._excuse()
        alone = Suspect(range_.first, range_.last, deaths, how, quarantined=deaths >= LEAST_DEATHS and excused > 0)
        self._suspects.setdefault(range_.partition, {})[alone.first] = alone
        if alone.quarantined and self._not_excused:
            # The first death, too, was this message's.
            self._not_excused -= 1
            excused += 1
        return Verdict(self._parts(range_), excused, alone if alone.quarantined else None)

    def copy_died(self, range_: Range) -> int:
        """A process died of a copy of what was cut meanwhile. Returns how many deaths are excused."""
        return self._excuse() if self._within(range_) else 0

    def is_suspect(self, range_: Range) -> bool:
        """Whether a range has suspects in it."""
        return range_.partition in self._suspects and bool(self._within(range_))

    def gave_up(self, range_: Range, why: str) -> Verdict:
        """A process lives, and could not deal with a range as a whole."""
        if not self._within(range_):
            self._put(range_.partition, _cut(range_.first, range_.last), 0, why)
        if range_.first < range_.last:
            return Verdict(self._parts(range_))
        alone = Suspect(range_.first, range_.last, 0, why, quarantined=True)
        self._suspects.setdefault(range_.partition, {})[alone.first] = alone
        return Verdict(self._parts(range_), 0, alone)

    def settled(self) -> None:
        """A batch came through: the processes work."""
        self._excused_in_a_row = 0

    def committed(self, partition: Partition, offset: int) -> bool:
        """Forgets what is stored. True where that was something."""
        return self._forget(partition, [one for one in self.suspects(partition) if one.last <= offset])

    def cut_off(self, partition: Partition, position: int) -> bool:
        """Forgets what a partition's log has lost, from a position on: other messages take the offsets."""
        return self._forget(partition, [one for one in self.suspects(partition) if one.last >= position])

    def _forget(self, partition: Partition, suspects: list[Suspect]) -> bool:
        for suspect in suspects:
            self._remove(partition, suspect)
        return bool(suspects)

    def _excuse(self) -> int:
        self._excused_in_a_row += 1
        return int(self._excused_in_a_row <= EXCUSED_IN_A_ROW)

    def _within(self, range_: Range) -> list[Suspect]:
        return [one for one in self.suspects(range_.partition) if one.first <= range_.last and range_.first <= one.last]

    def _put(self, partition: Partition, parts: list[tuple[int, int]], deaths: int, how: str) -> None:
        known = self._suspects.setdefault(partition, {})
        for first, last in parts:
            known[first] = Suspect(first, last, deaths, how)

    def _remove(self, partition: Partition, suspect: Suspect) -> None:
        del self._suspects[partition][suspect.first]
        if not self._suspects[partition]:
            del self._suspects[partition]

    def _parts(self, range_: Range) -> list[tuple[int, int]]:
        """A range cut at the edges of the suspects in it."""
        edges = {range_.first, range_.last + 1}
        for suspect in self._within(range_):
            edges |= {max(suspect.first, range_.first), min(suspect.last, range_.last) + 1}
        ordered = sorted(edges)
        return [(first, after - 1) for first, after in zip(ordered, ordered[1:], strict=False)]


def _cut(first: int, last: int) -> list[tuple[int, int]]:
    """Offsets in at most PARTS parts of about the same size."""
    size = -(-(last - first + 1) // PARTS)
    return [(at, min(at + size - 1, last)) for at in range(first, last + 1, size)]


def _gaps(first: int, last: int, suspects: list[Suspect]) -> list[tuple[int, int]]:
    """Offsets that are in none of the suspects, which are in order."""
    gaps = []
    at = first
    for suspect in suspects:
        if suspect.first > at:
            gaps.append((at, suspect.first - 1))
        at = max(at, suspect.last + 1)
    if at <= last:
        gaps.append((at, last))
    return gaps
