"""Finds the message that processes die of, or hang on: splits its range until the message is alone. Pure.

The range that a process worked on when it died is suspect. It is read again in parts, and a part that another process
dies of is split again, while everything else continues. A message that is alone at last, and that enough processes died
of, is quarantined: no process gets it any more, and it becomes a dead letter.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from pipeline.wire.sink import Partition, Range, Suspect

#: Parts of a suspect range: a message among 8,000 is isolated in four deaths.
PARTS: Final = 20
#: Deaths with a message in the range, the last of them with this message alone, before it is quarantined. A single
#: death proves little: batches may hold one message, and operators kill processes.
LEAST_DEATHS: Final = 3
#: Deaths in a row, without a settled batch in between, that are excused: enough to isolate two messages. When nothing
#: else gets through, the process itself is broken.
EXCUSED_IN_A_ROW: Final = 10


class Verdict(Struct, frozen=True):
    """What follows from a death."""

    #: The parts that the range is split into, (first, last) offsets; a single one if it stays whole.
    parts: list[tuple[int, int]]
    #: Deaths, this one and earlier ones, that were caused by this range and not by the processes.
    excused: int = 0
    #: The message that is quarantined from now on.
    quarantined: Suspect | None = None


class Quarantine:
    """The suspect ranges of all partitions, disjoint, identified by their offsets only: they outlive an epoch."""

    def __init__(self, suspects: Iterable[tuple[Partition, Suspect]] = ()) -> None:
        self._suspects: dict[Partition, dict[int, Suspect]] = {}
        for partition, suspect in suspects:
            self._suspects.setdefault(partition, {})[suspect.first] = suspect
        self._excused_in_a_row = 0
        #: Deaths with ranges that were not suspect before.
        self._not_excused = 0

    def suspects(self, partition: Partition) -> list[Suspect]:
        """The suspects of a partition, in the order of their offsets."""
        return [suspect for _, suspect in sorted(self._suspects.get(partition, {}).items())]

    def all(self) -> list[tuple[Partition, Suspect]]:
        """All suspects, as the constructor takes them."""
        return [(partition, suspect) for partition in self._suspects for suspect in self.suspects(partition)]

    def quarantined(self, range_: Range) -> Suspect | None:
        """The suspect, if the range is a quarantined message."""
        suspect = self._suspects.get(range_.partition, {}).get(range_.first)
        return suspect if suspect is not None and suspect.quarantined and suspect.last == range_.last else None

    def died(self, range_: Range, how: str) -> Verdict:
        """A process died, or hung, while it worked on a range. `how`: for people."""
        found = self._within(range_)
        if len(found) != 1 or found[0].first > range_.first or found[0].last < range_.last:
            # A new suspect, or a copy of a range that has been split since.
            for first, last in _gaps(range_.first, range_.last, found):
                self._add(range_.partition, [(first, last)] if found else _split(first, last), 1, how)
            if not found:
                self._not_excused += 1
            return Verdict(self._parts(range_), self._excuse() if found else 0)
        [suspect] = found
        deaths = suspect.deaths + 1
        self._remove(range_.partition, suspect)
        for first, last in _gaps(suspect.first, suspect.last, [Suspect(range_.first, range_.last)]):
            self._add(range_.partition, [(first, last)], suspect.deaths, suspect.how)
        if range_.first < range_.last:
            self._add(range_.partition, _split(range_.first, range_.last), deaths, how)
            return Verdict(self._parts(range_), self._excuse())
        return self._died_alone(range_, deaths, how)

    def _died_alone(self, range_: Range, deaths: int, how: str) -> Verdict:
        """The same for a range of a single message."""
        excused = self._excuse()
        alone = Suspect(range_.first, range_.last, deaths, how, quarantined=deaths >= LEAST_DEATHS and excused > 0)
        self._suspects.setdefault(range_.partition, {})[alone.first] = alone
        if alone.quarantined and self._not_excused:
            # The first death was caused by this message, too.
            self._not_excused -= 1
            excused += 1
        return Verdict(self._parts(range_), excused, alone if alone.quarantined else None)

    def died_of_one(self, ranges: list[Range], how: str) -> int:
        """A process died while it worked on several ranges at the same time: each of them is suspect, as a whole.

        Returns how many deaths are excused.
        """
        known = any(map(self.is_suspect, ranges))
        for range_ in ranges:
            gaps = _gaps(range_.first, range_.last, self._within(range_))
            self._add(range_.partition, list(gaps), 1, how)
        self._not_excused += not known
        return self._excuse() if known else 0

    def copies_died(self, ranges: list[Range]) -> int:
        """A process died with copies of ranges that have been split since. Returns how many deaths are excused."""
        return self._excuse() if any(map(self.is_suspect, ranges)) else 0

    def is_suspect(self, range_: Range) -> bool:
        """Whether a range contains suspects."""
        return range_.partition in self._suspects and bool(self._within(range_))

    def gave_up(self, range_: Range, why: str) -> Verdict:
        """A process could not process a range as a whole, and lives."""
        if not self._within(range_):
            self._add(range_.partition, _split(range_.first, range_.last), 0, why)
        if range_.first < range_.last:
            return Verdict(self._parts(range_))
        alone = Suspect(range_.first, range_.last, 0, why, quarantined=True)
        self._suspects.setdefault(range_.partition, {})[alone.first] = alone
        return Verdict(self._parts(range_), 0, alone)

    def settled(self) -> None:
        """A batch was settled: the processes work."""
        self._excused_in_a_row = 0

    def committed(self, partition: Partition, offset: int) -> bool:
        """Forgets suspects up to a committed offset. True if there were any."""
        return self._forget(partition, [one for one in self.suspects(partition) if one.last <= offset])

    def truncated(self, partition: Partition, position: int) -> bool:
        """Forgets suspects from a position on, since the log gives these offsets to other messages. True if there were
        any."""
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

    def _add(self, partition: Partition, parts: list[tuple[int, int]], deaths: int, how: str) -> None:
        known = self._suspects.setdefault(partition, {})
        for first, last in parts:
            known[first] = Suspect(first, last, deaths, how)

    def _remove(self, partition: Partition, suspect: Suspect) -> None:
        del self._suspects[partition][suspect.first]
        if not self._suspects[partition]:
            del self._suspects[partition]

    def _parts(self, range_: Range) -> list[tuple[int, int]]:
        """A range split at the edges of the suspects in it."""
        edges = {range_.first, range_.last + 1}
        for suspect in self._within(range_):
            edges |= {max(suspect.first, range_.first), min(suspect.last, range_.last) + 1}
        ordered = sorted(edges)
        return [(first, after - 1) for first, after in zip(ordered, ordered[1:], strict=False)]


def _split(first: int, last: int) -> list[tuple[int, int]]:
    """Offsets in at most PARTS parts of about the same size."""
    size = -(-(last - first + 1) // PARTS)
    return [(at, min(at + size - 1, last)) for at in range(first, last + 1, size)]


def _gaps(first: int, last: int, suspects: list[Suspect]) -> list[tuple[int, int]]:
    """The offsets between suspects, which are in order."""
    gaps = []
    at = first
    for suspect in suspects:
        if suspect.first > at:
            gaps.append((at, suspect.first - 1))
        at = max(at, suspect.last + 1)
    if at <= last:
        gaps.append((at, last))
    return gaps
