"""The order of one partition's batches at one database. Pure.

Batches of a partition are written concurrently as long as none fails. When one fails, later ones wait for it, and those
that were stored in the meantime are written once more after it. A value that a retry writes late therefore never
remains in place of a newer one of the same series and time.
"""

from bisect import insort
from typing import Generic, Protocol, TypeVar


class _Job(Protocol):
    delayed: bool

    @property
    def done(self) -> bool:
        """Whether there is nothing left to send."""

    def again(self) -> None:
        """Sends everything once more."""


J = TypeVar("J", bound=_Job)


class Entry(Generic[J]):
    """A job in the order of its partition."""

    __slots__ = ("first", "job", "overtaken", "started", "written")

    def __init__(self, first: int, job: J) -> None:
        #: Offset of the batch's first message.
        self.first = first
        self.job = job
        self.started = self.written = False
        #: An older batch was stored while this one was in flight.
        self.overtaken = False


class PartitionOrder(Generic[J]):
    """The jobs of one partition, by offset."""

    def __init__(self) -> None:
        self.entries: list[Entry[J]] = []

    def add(self, first: int, job: J) -> Entry[J]:
        """Adds a batch."""
        entry = Entry(first, job)
        insort(self.entries, entry, key=lambda e: e.first)
        return entry

    def startable(self) -> list[Entry[J]]:
        """The entries that may have requests in flight now, oldest first."""
        out = []
        for entry in self.entries:
            if not entry.written:
                out.append(entry)
                if entry.job.delayed:
                    break
        return out

    def finished(self, entry: Entry[J], repeats: bool = True) -> list[J]:
        """Handles that a job's last line is stored or refused. Returns the jobs that are final with that, oldest first.

        Without `repeats`, stored batches are not written once more.
        """
        entry.written = True
        if entry.overtaken and repeats:
            self._send_again(entry)
        if not entry.written:
            return []
        final = []
        while self.entries and self.entries[0].written:
            head = self.entries.pop(0)
            final.append(head.job)
            if head.job.delayed and repeats:
                for later in self.entries:
                    if later.written:
                        self._send_again(later)
                    elif later.started:
                        later.overtaken = True
        return final

    def _send_again(self, entry: Entry[J]) -> None:
        entry.overtaken = False
        entry.job.again()
        entry.written = entry.job.done
        entry.job.delayed = True
