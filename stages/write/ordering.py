"""The order of the batches at one database, partition by partition. Pure.

Batches of a partition are written at the same time as long as none fails. When one fails, later ones wait for it; those
that were stored in the meantime are written once more after it. So a value that is written late because of a retry
never replaces a newer one of the same series and time.

A job may have batches of several partitions, and a place in the order of each. These orders never contradict each
other: in all of them jobs are in the order in which they were dispatched.
"""

from bisect import insort
from collections.abc import Hashable, Iterator, Mapping
from functools import partial
from typing import Any, Generic, Protocol, TypeVar


class _Job(Protocol):
    delayed: bool

    @property
    def done(self) -> bool:
        """Whether there is nothing left to send."""

    def resend(self) -> None:
        """Everything is to be sent once more."""


J = TypeVar("J", bound=_Job)


class Entry(Generic[J]):
    """A job, and its place in the order of each of its partitions."""

    __slots__ = ("job", "overtaken", "places", "started", "written")

    def __init__(self, places: Mapping[Hashable, Any], job: J) -> None:
        #: By partition: what grows from batch to batch, such as the offset of the first message.
        self.places = places
        self.job = job
        self.started = self.written = False
        #: An older batch was stored while this one was in flight.
        self.overtaken = False


def _place(key: Hashable, entry: Entry[Any]) -> Any:
    return entry.places[key]


class WriteOrder(Generic[J]):
    """The jobs of all partitions at one database."""

    def __init__(self) -> None:
        #: By partition, that which was served least recently first: its entries, in their order.
        self._lanes: dict[Hashable, list[Entry[J]]] = {}

    def __bool__(self) -> bool:
        """Whether there is a job."""
        return bool(self._lanes)

    def add(self, places: Mapping[Hashable, Any], job: J) -> Entry[J]:
        """Adds a job with its place in the order of each of its partitions, of which there is at least one."""
        entry = Entry(places, job)
        for key in places:
            insort(self._lanes.setdefault(key, []), entry, key=partial(_place, key))
        return entry

    def startable(self) -> list[Entry[J]]:
        """The entries that may have requests in flight now: in each partition the oldest first, the partitions in turn.
        """
        blocked: set[int] = set()
        found: dict[int, Entry[J]] = {}
        for lane in self._lanes.values():
            waits = False
            for entry in lane:
                if waits:
                    blocked.add(id(entry))
                elif not entry.written:
                    found[id(entry)] = entry
                    waits = entry.job.delayed
        return [entry for key, entry in found.items() if key not in blocked]

    def served(self, entry: Entry[J]) -> None:
        """A request of this entry is sent: other partitions have their turn before its own."""
        for key in entry.places:
            self._lanes[key] = self._lanes.pop(key)

    def finished(self, entry: Entry[J], repeats: bool = True) -> list[J]:
        """A job's last line is stored or refused. Returns the jobs that are over with that, oldest first.

        Without `repeats` what is stored is not written once more.
        """
        entry.written = True
        if entry.overtaken and repeats:
            self._send_again(entry)
        over: list[J] = []
        candidates = [entry]
        while candidates:
            head = candidates.pop(0)
            if not head.written or not self._is_first(head):
                continue
            over.append(head.job)
            later = dict.fromkeys(self._remove(head))
            if head.job.delayed and repeats:
                for other in later:
                    if other.written:
                        self._send_again(other)
                    elif other.started:
                        other.overtaken = True
            candidates += [lane[0] for key in head.places if (lane := self._lanes.get(key))]
        return over

    def remove(self, entry: Entry[J]) -> None:
        """Removes an entry whatever its state."""
        for _ in self._remove(entry):
            pass

    def entries(self) -> list[Entry[J]]:
        """All entries."""
        return list({id(entry): entry for lane in self._lanes.values() for entry in lane}.values())

    def _is_first(self, entry: Entry[J]) -> bool:
        """Whether it is the oldest of each of its partitions, and was not removed."""
        return all((lane := self._lanes.get(key)) and lane[0] is entry for key in entry.places)

    def _remove(self, entry: Entry[J]) -> Iterator[Entry[J]]:
        """Removes an entry. Gives the others of its partitions that come after it."""
        for key in entry.places:
            lane = self._lanes.get(key, [])
            if entry in lane:
                at = lane.index(entry)
                del lane[at]
                yield from lane[at:]
            if not lane:
                self._lanes.pop(key, None)

    def _send_again(self, entry: Entry[J]) -> None:
        entry.overtaken = False
        entry.job.resend()
        entry.written = entry.job.done
        entry.job.delayed = True
