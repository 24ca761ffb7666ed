"""The order of one partition's batches at one database. Pure.

Batches of a partition are written at the same time as long as none fails. When one fails, later ones wait for it; those
that were stored in the meantime are written once more after it. So a value that is written late because of a retry
never replaces a newer one of the same series and time.
"""

from bisect import insort
from typing import Generic, Protocol, TypeVar


class _Job(Protocol):
    delayed: bool

    @property
    def done(self) -> bool:
        """Whether there is nothing left to send."""

    def resend(self) -> None:
        """Everything is to be sent once more."""


J = TypeVar("J", bound=_Job)


class Entry(Generic[J]):
    """A job in its order."""

    __slots__ = ("first", "job", "order", "overtaken", "started", "written")

    def __init__(self, order: "PartitionOrder[J]", first: int, job: J) -> None:
        self.order = order
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
        """Adds the job of a batch whose first offset is `first`."""
        entry = Entry(self, first, job)
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
        """A job's last line is stored or refused. Returns the jobs that are complete with that, oldest first.

        Without `repeats` nothing that is stored is written once more.
        """
        entry.written = True
        if entry.overtaken and repeats:
            self._send_again(entry)
        if not entry.written:
            return []
        complete = []
        while self.entries and self.entries[0].written:
            head = self.entries.pop(0)
            complete.append(head.job)
            if head.job.delayed and repeats:
                for later in self.entries:
                    if later.written:
                        self._send_again(later)
                    elif later.started:
                        later.overtaken = True
        return complete

    def _send_again(self, entry: Entry[J]) -> None:
        entry.overtaken = False
        entry.job.resend()
        entry.written = entry.job.done
        entry.job.delayed = True
