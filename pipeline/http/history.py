"""Totals of the last hour, one sample a second: for rates and plots. Pure: the caller gives the time."""

from collections import deque
from typing import Final

from msgspec import Struct

from pipeline.http.feeds import Snapshot

#: Seconds that are kept, at one sample a second.
KEPT: Final = 3_600
#: Rates are those of the last seconds.
RATE_SECONDS: Final = 10.0
#: Samples that a plot is made of, at most.
MOST_PLOTTED: Final = 360


class Sample(Struct, frozen=True, array_like=True):
    """Totals at one time. Those of a direction that the pipeline does not have are 0."""

    #: Seconds since 1970.
    time: float
    #: Messages that were read from Iggy, and points that were written.
    read: int = 0
    written: int = 0
    #: Messages that were rejected.
    rejected: int = 0
    #: Bytes that were sent to the databases.
    sent_bytes: int = 0
    #: Messages that are read and not settled, and those in Iggy that are not committed.
    in_flight: int = 0
    lag: int = 0
    #: The source direction: points that were sent to Iggy; the age of the oldest watermark, seconds.
    points: int = 0
    behind_seconds: float = 0.0


class Plots(Struct, frozen=True):
    """The answer of `/history`: at most MOST_PLOTTED samples, evenly spread, oldest first; and always the newest."""

    #: The names of what each sample has.
    fields: tuple[str, ...]
    samples: list[Sample]


class Rates(Struct, frozen=True):
    """Per second, over the last RATE_SECONDS."""

    read: float = 0.0
    written: float = 0.0
    rejected: float = 0.0
    sent_bytes: float = 0.0
    points: float = 0.0


class History:
    """The samples, oldest first."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)

    def add(self, snapshot: Snapshot) -> None:
        """Adds what is known now. Nothing while nothing is known."""
        sample = sample_of(snapshot)
        if sample is not None:
            self.samples.append(sample)

    def plots(self) -> Plots:
        """What is plotted."""
        every = -(-len(self.samples) // MOST_PLOTTED) or 1
        # Those of the same times each time, so that a plot does not flicker.
        kept = [one for one in self.samples if round(one.time) % every == 0]
        if self.samples and (not kept or kept[-1] is not self.samples[-1]):
            kept.append(self.samples[-1])
        return Plots(Sample.__struct_fields__, kept[-MOST_PLOTTED:])

    def rates(self) -> Rates:
        """The rates now. A total that has become smaller is that of a new coordinator, which counts from 0."""
        if len(self.samples) < 2:
            return Rates()
        last = self.samples[-1]
        first = next(one for one in self.samples if one.time >= last.time - RATE_SECONDS - 0.5)
        seconds = last.time - first.time
        if seconds <= 0:
            return Rates()
        return Rates(*(_growth(getattr(first, name), getattr(last, name)) / seconds for name in
                       Rates.__struct_fields__))


def _growth(first: int, last: int) -> int:
    return last - first if last >= first else last


def sample_of(snapshot: Snapshot) -> Sample | None:
    """The totals in a snapshot; None before the first Status."""
    sink, source = snapshot.sink, snapshot.source
    if sink is None and source is None:
        return None
    oldest = min((one.watermark / 1e9 for one in source.measurements), default=snapshot.time) if source else 0.0
    return Sample(
        snapshot.time,
        *((sink.read, sink.written, sink.rejected, sink.sent_bytes, sink.in_flight,
           sum(partition.lag for partition in sink.partitions)) if sink else (0,) * 6),
        source.points if source else 0, max(0.0, snapshot.time - oldest) if source else 0.0)
