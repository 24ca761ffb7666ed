"""Batches that are sent together: a full one, or small ones of several partitions."""

from pipeline.wire import sink as wire
from stages.ingest.batch_sender import PolledBatch

#: Batches of a bundle, at most.
MAX_BATCHES = 500


class Bundle:
    """Batches, together no larger than one may be."""

    def __init__(self, batch_messages: int, max_bytes: int) -> None:
        """What one batch may have."""
        self._batch_messages = batch_messages
        self._max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """It is sent."""
        self.batches: list[PolledBatch] = []
        self.reports: list[wire.Dispatched] = []
        self._messages = self._bytes = 0

    def has_room(self, range_: wire.Range) -> bool:
        """Whether another batch may be added; the first one may always."""
        return not self.reports or (len(self.reports) < MAX_BATCHES
                                    and self._messages + range_.messages <= self._batch_messages
                                    and self._bytes + range_.bytes <= self._max_bytes)

    def add(self, batch: PolledBatch, quarantined: bool) -> None:
        """Adds a batch. A quarantined message is reported, and not sent."""
        self.reports.append(wire.Dispatched(batch.range, batch.messages[-1].timestamp()))
        if not quarantined:
            self.batches.append(batch)
        self._messages += batch.range.messages
        self._bytes += batch.range.bytes
