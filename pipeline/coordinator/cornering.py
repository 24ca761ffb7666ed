"""The coordinator's quarantine: what a death says goes into the ledger, the log, and a file for its successor."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from pipeline.config.schema import Subscription
from pipeline.coordinator.ledger import Ledger
from pipeline.coordinator.quarantine import Quarantine, Verdict
from pipeline.wire import sink as wire
from pipeline.work_file import work_of

#: A suspect that is not settled so long after it was sent is sent again, unless a process has it in hand, seconds.
ANSWER_SECONDS = 3.0
_kept = msgspec.json.Decoder(list[tuple[wire.Partition, wire.Suspect]])


class SuspectFile:
    """The suspects of one run, in `suspects-RUN.json`. Those of other runs are removed: the folder is locked."""

    def __init__(self, folder: Path, run: str) -> None:
        self.path = folder / f"suspects-{run}.json"
        for other in folder.glob("suspects-*.json"):
            if other != self.path:
                with contextlib.suppress(OSError):
                    other.unlink()

    def read(self) -> list[tuple[wire.Partition, wire.Suspect]]:
        """What the coordinator before this one of the same run has kept. Raises OSError."""
        try:
            return _kept.decode(self.path.read_bytes())
        except (FileNotFoundError, msgspec.MsgspecError):
            return []

    def write(self, suspects: list[tuple[wire.Partition, wire.Suspect]]) -> None:
        """Keeps these in place of the others. Raises OSError."""
        new = self.path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
            file.write(msgspec.json.encode(suspects))
        new.replace(self.path)


class Cornering:
    """Part of the coordinator."""

    def __init__(self, ledger: Ledger, topics: tuple[Subscription, ...], folder: str, run: str,
                 logger: logging.Logger) -> None:
        self._ledger = ledger
        self._topics = topics
        self._folder = folder
        self._logger = logger
        self._file = SuspectFile(Path(folder), run)
        self._quarantine = Quarantine()
        #: Whether the file can't be read or written, and the log says so.
        self._fails = False
        with self._kept():
            self._quarantine = Quarantine(self._file.read())

    def suspects(self, partition: wire.Partition) -> list[wire.Suspect]:
        """Those of a partition: batches are cut at their edges."""
        return self._quarantine.suspects(partition)

    def died(self, name: str, work: wire.Range, how: str) -> int:
        """A process died while it had a range in hand. Returns how many deaths a message is to blame for."""
        if work.epoch == self._ledger.epoch and self._ledger.is_settled(work):
            return self._quarantine.copy_died(work)
        verdict = self._quarantine.died(work, f"{name.partition('-')[0]}: {how}")
        parts = self._ledger.split(work, verdict.parts)
        self._logger.warning("%s had %s in hand when it died (%s)%s", name, self._shown(work), how,
                             f": they are read again in {len(parts)} parts" if len(parts) > 1 else "")
        self._take(verdict, work)
        return verdict.excused

    def gave_up(self, name: str, work: wire.Range, why: str) -> list[wire.Range]:
        """A process could not deal with a range as a whole. Returns its parts, to be read again."""
        if work.epoch != self._ledger.epoch or self._ledger.is_settled(work):
            return []
        verdict = self._quarantine.gave_up(work, f"{name.partition('-')[0]}: {why}")
        parts = self._ledger.split(work, verdict.parts)
        self._logger.info("%s reads %s again in %d parts: %s", name, self._shown(work), len(parts), why)
        self._take(verdict, work)
        return parts

    def _take(self, verdict: Verdict, work: wire.Range) -> None:
        if verdict.quarantined is not None:
            self._logger.error("%s is quarantined, and becomes a dead letter: %s", self._shown(work),
                               _words(verdict.quarantined))
        self._keep()

    def to_send(self, ranges: list[wire.Range], names: Iterable[str], suspects: bool) -> list[wire.Range]:
        """Of the ranges to be read again, those that may be sent: of a suspect one copy at a time, so that one process
        at most dies of it, or hangs on it.

        So it is kept back while a process among `names` has it in hand; without `suspects`, all of them are.
        """
        if not any(map(self._quarantine.is_suspect, ranges)):
            return ranges
        in_hand = {work_of(self._folder, name) for name in names}
        return [one for one in ranges if not self._quarantine.is_suspect(one) or suspects and one not in in_hand]

    def unanswered(self, now: float) -> list[wire.Range]:
        """Suspects that were sent a while ago, and are not settled: the one who got them may have died."""
        if not self._quarantine.all():
            return []
        return [one for one in self._ledger.overdue(now, ANSWER_SECONDS) if self._quarantine.is_suspect(one)]

    def quarantined(self, range_: wire.Range) -> wire.Settled | None:
        """What a range comes to that is a quarantined message; None where it is none."""
        suspect = self._quarantine.quarantined(range_)
        if suspect is None:
            return None
        stage = "write" if suspect.how.startswith("write") else "encode"
        reason = "quarantined" if suspect.deaths else "internal_error"
        return wire.Settled(range_, 0, 0, [wire.Reject(range_.first, reason, _words(suspect), stage)])

    def settled(self) -> None:
        """A batch came through."""
        self._quarantine.settled()

    def cut_off(self, partition: wire.Partition, position: int) -> None:
        """A partition's log was cut off there, or went to another pipeline from there on."""
        if self._quarantine.cut_off(partition, position):
            self._keep()

    def forget_stored(self) -> None:
        """Forgets what is stored in Iggy. To be called now and then."""
        stored = [self._quarantine.committed(partition, self._ledger.committed(partition))
                  for partition, _ in self._ledger.positions()] if self._quarantine.all() else []
        if any(stored) or self._fails:
            self._keep()

    def _keep(self) -> None:
        with self._kept():
            self._file.write(self._quarantine.all())
            self._fails = False

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Goes on without the file where it fails: then a new coordinator begins the search anew."""
        try:
            yield
        except OSError as error:
            if not self._fails:
                self._fails = True
                self._logger.error("what processes died of can't be kept in %s: %s", self._file.path, error.strerror)

    def _shown(self, range_: wire.Range) -> str:
        topic = self._topics[range_.partition.topic]
        offsets = f"offset {range_.first}"
        if range_.first < range_.last:
            offsets = f"offsets {range_.first} to {range_.last}"
        return f"{topic.stream}/{topic.topic} partition {range_.partition.number} {offsets}"


def _words(suspect: wire.Suspect) -> str:
    if not suspect.deaths:
        return suspect.how
    return f"{suspect.deaths} processes died while they had it in hand, the last one with nothing else: {suspect.how}"
