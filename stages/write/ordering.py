"""The order of one partition's batches at one database. Pure.

Batches of a partition are written side by side as long as none fails. When one fails, later ones wait for it; those
that were stored in the meantime are written once more after it. So a value that is written late because of a retry
never stays in place of a newer one of the same series and time.
"""

from bisect import insort
from typing import Generic, Protocol, TypeVar


class _Job(Protocol):
    delayed: bool

    @property
    def done(self) -> bool:
        """Whether there is nothing left to send."""

    def again(self) -> None:
        """Everything is to be sent once more."""


J = TypeVar("J", bound=_Job)


class Entry(Generic[J]):
    """A job in its lane."""

    __slots__ = ("first", "job", "overtaken", "started", "written")

    def __init__(self, first: int, job: J) -> None:
        #: Offset of the batch's first message.
        self.first = first
        self.job = job
        self.started = self.written = False
        #: An older batch was stored while this one was on its way.
        self.overtaken = False


class PartitionOrder(Generic[J]):
    """The jobs of one partition, by offset."""

    def __init__(self) -> None:
        self.entries: list[Entry[J]] = []

    def add(self, first: int, job: J) -> Entry[J]:
        """Takes a batch in."""
        entry = Entry(first, job)
        insort(self.entries, entry, key=lambda e: e.first)
        return entry

    def startable(self) -> list[Entry[J]]:
        """The entries that may have requests on their way now, oldest first."""
        out = []
        for entry in self.entries:
            if not entry.written:
                out.append(entry)
                if entry.job.delayed:
                    break
        return out

    def finished(self, entry: Entry[J], repeats: bool = True) -> list[J]:
        """A job's last line is stored or refused. Returns the jobs that are over with that, oldest first.

        Without `repeats` what is stored is not written once more.
        """
        entry.written = True
        if entry.overtaken and repeats:
            self._send_again(entry)
        if not entry.written:
            return []
        over = []
        while self.entries and self.entries[0].written:
            head = self.entries.pop(0)
            over.append(head.job)
            if head.job.delayed and repeats:
                for later in self.entries:
                    if later.written:
                        self._send_again(later)
                    elif later.started:
                        later.overtaken = True
        return over

    def _send_again(self, entry: Entry[J]) -> None:
        entry.overtaken = False
        entry.job.again()
        entry.written = entry.job.done
        entry.job.delayed = True
