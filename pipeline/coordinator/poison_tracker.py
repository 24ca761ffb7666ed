"""Tracks messages that kill processes: enters what `quarantine.py` decides into the ledger, the log and a file."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from pipeline.coordinator.ledger import Ledger
from pipeline.coordinator.quarantine import Quarantine, Verdict
from pipeline.log_formats import facts
from pipeline.subscriptions import Subscriptions
from pipeline.wire import sink as wire
from pipeline.work_file import work_of

#: A suspect range that is not settled so long after it was sent is sent again, unless a process works on it, seconds.
ANSWER_SECONDS = 3.0
_stored = msgspec.json.Decoder(list[tuple[wire.Partition, wire.Suspect]])


class SuspectFile:
    """The suspects of one run, in `suspects-RUN.json`, for the next coordinator of this run.

    Files of other runs are removed: the folder is locked, so that no other run uses them.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.path = folder / f"suspects-{run}.json"
        for other in folder.glob("suspects-*.json"):
            if other != self.path:
                with contextlib.suppress(OSError):
                    other.unlink()

    def read(self) -> list[tuple[wire.Partition, wire.Suspect]]:
        """The suspects that the previous coordinator of this run has stored. Raises OSError."""
        try:
            return _stored.decode(self.path.read_bytes())
        except (FileNotFoundError, msgspec.MsgspecError):
            return []

    def write(self, suspects: list[tuple[wire.Partition, wire.Suspect]]) -> None:
        """Replaces the stored suspects. Raises OSError."""
        new = self.path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
            file.write(msgspec.json.encode(suspects))
        new.replace(self.path)


class PoisonTracker:
    """Part of the coordinator."""

    def __init__(self, ledger: Ledger, topics: Subscriptions, folder: str, run: str,
                 logger: logging.Logger) -> None:
        self._ledger = ledger
        self._topics = topics
        self._folder = folder
        self._logger = logger
        self._file = SuspectFile(Path(folder), run)
        self._quarantine = Quarantine()
        #: The file cannot be read or written, and that was logged.
        self._file_failed = False
        with self._logged_failures():
            self._quarantine = Quarantine(self._file.read())

    def suspects(self, partition: wire.Partition) -> list[wire.Suspect]:
        """The suspects of a partition: batches are cut at their edges."""
        return self._quarantine.suspects(partition)

    def died(self, name: str, work: list[wire.Range], how: str) -> int:
        """A process died while it worked on ranges, all at the same time. Returns how many deaths were caused by a
        message."""
        unsettled = [one for one in work if one.epoch != self._ledger.epoch or not self._ledger.is_settled(one)]
        if not unsettled:
            return self._quarantine.copies_died(work)
        if len(unsettled) == 1:
            return self._died_of(name, unsettled[0], how)
        excused = self._quarantine.died_of_one(unsettled, f"{name.partition('-')[0]}: {how}")
        self._logger.warning("%s was working on %d ranges at the same time when it died (%s), from %s to %s; reading "
                             "each of them again alone", name, len(unsettled), how, self._label(unsettled[0]),
                             self._label(unsettled[-1]))
        self._store()
        return excused

    def _died_of(self, name: str, work: wire.Range, how: str) -> int:
        verdict = self._quarantine.died(work, f"{name.partition('-')[0]}: {how}")
        parts = self._ledger.split(work, verdict.parts)
        self._logger.warning("%s was working on %s when it died (%s)%s", name, self._label(work), how,
                             f"; reading it again in {len(parts)} parts" if len(parts) > 1 else "",
                             extra=self._facts(work))
        self._store_verdict(verdict, work)
        return verdict.excused

    def gave_up(self, name: str, work: wire.Range, why: str) -> list[wire.Range]:
        """A process could not process a range as a whole. Returns the parts of it, which are to be read again."""
        if work.epoch != self._ledger.epoch or self._ledger.is_settled(work):
            return []
        verdict = self._quarantine.gave_up(work, f"{name.partition('-')[0]}: {why}")
        parts = self._ledger.split(work, verdict.parts)
        self._logger.info("%s could not process %s (%s); reading it again in %d parts", name, self._label(work), why,
                          len(parts))
        self._store_verdict(verdict, work)
        return parts

    def _store_verdict(self, verdict: Verdict, work: wire.Range) -> None:
        if verdict.quarantined is not None:
            self._logger.error("%s is quarantined and becomes a dead letter: %s", self._label(work),
                               _reason(verdict.quarantined), extra=self._facts(work))
        self._store()

    def to_send(self, ranges: list[wire.Range], names: Iterable[str], suspects: bool) -> list[wire.Range]:
        """Those of the ranges to be read again that may be sent now: of a suspect one copy at a time, so that at most
        one process dies of it, or hangs.

        A suspect is held back while a process among `names` works on it, and without `suspects` always.
        """
        if not any(map(self._quarantine.is_suspect, ranges)):
            return ranges
        in_work = {one for name in names for one in work_of(self._folder, name)}
        return [one for one in ranges if not self._quarantine.is_suspect(one) or suspects and one not in in_work]

    def unanswered(self, now: float) -> list[wire.Range]:
        """Suspects that were sent a while ago and are not settled: the process that got them may have died."""
        if not self._quarantine.all():
            return []
        return [one for one in self._ledger.overdue(now, ANSWER_SECONDS) if self._quarantine.is_suspect(one)]

    def quarantined(self, range_: wire.Range) -> wire.Settled | None:
        """The report that settles a range which is a quarantined message, by rejecting it; None for any other range."""
        suspect = self._quarantine.quarantined(range_)
        if suspect is None:
            return None
        stage = "write" if suspect.how.startswith("write") else "encode"
        reason = "quarantined" if suspect.deaths else "internal_error"
        return wire.Settled(range_, 0, 0, [wire.Reject(range_.first, reason, _reason(suspect), stage)])

    def settled(self) -> None:
        """A batch was settled: the processes work."""
        self._quarantine.settled()

    def truncated(self, partition: wire.Partition, position: int) -> None:
        """The partition's log was truncated at `position`, or was assigned to another pipeline from there on."""
        if self._quarantine.truncated(partition, position):
            self._store()

    def forget_committed(self) -> None:
        """Forgets suspects below the committed offsets. To be called about once a second."""
        forgotten = [self._quarantine.committed(partition, self._ledger.committed(partition))
                     for partition, _ in self._ledger.positions()] if self._quarantine.all() else []
        if any(forgotten) or self._file_failed:
            self._store()

    def _store(self) -> None:
        with self._logged_failures():
            self._file.write(self._quarantine.all())
            self._file_failed = False

    @contextlib.contextmanager
    def _logged_failures(self) -> Iterator[None]:
        """Continues without the file when it fails. A new coordinator then starts the search from the beginning."""
        try:
            yield
        except OSError as error:
            if not self._file_failed:
                self._file_failed = True
                self._logger.error("suspect messages cannot be stored in %s: %s", self._file.path, error.strerror)

    def _facts(self, range_: wire.Range) -> dict[str, dict[str, str | int]]:
        partition = range_.partition
        topic = self._topics[partition.topic] if partition.topic in self._topics else None
        return facts(stream=topic.stream if topic else None, topic=topic.topic if topic else None,
                     partition=partition.number, offset=range_.first, last_offset=range_.last)

    def _label(self, range_: wire.Range) -> str:
        offsets = f"offset {range_.first}"
        if range_.first < range_.last:
            offsets = f"offsets {range_.first} to {range_.last}"
        return f"{self._topics.label(range_.partition)} {offsets}"


def _reason(suspect: wire.Suspect) -> str:
    if not suspect.deaths:
        return suspect.how
    return f"{suspect.deaths} processes died while they worked on it, the last one on nothing else: {suspect.how}"
