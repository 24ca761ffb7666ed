"""What the processes of the sink direction measure and count, beyond what their other reports have."""

from msgspec import Struct

from pipeline.wire.common import Count, Index
from pipeline.wire.measures import BYTES, SECONDS, Histogram


class EncodedTopic(Struct, frozen=True, array_like=True):
    """What an encoder made of the messages of one topic."""

    #: As in `Partition`.
    topic: Count
    points: Count
    #: Messages left out on purpose.
    filtered: Count


class EncodeMeasures(Struct, array_like=True):
    """Durations of batches in an encoder."""

    #: From the dispatch by ingest to the start of encoding; not of encoders of other machines, whose clocks differ.
    wait: Histogram
    encode: Histogram

    def add(self, more: "EncodeMeasures") -> None:
        """Adds what another one has."""
        self.wait.add(more.wait)
        self.encode.add(more.encode)

    def fits(self) -> bool:
        """Whether its histograms have the right buckets."""
        return self.wait.fits(SECONDS) and self.encode.fits(SECONDS)


class Outcome(Struct, frozen=True, array_like=True):
    """How often requests ended in one way."""

    #: HTTP status: 200 for any success, 0 where no answer came.
    status: Count
    #: "accepted", "bad_lines", "too_large", or why the request is repeated: a reason of `stages.influxdb.answers`.
    outcome: str
    #: The request is repeated.
    retried: bool
    count: Count


class TargetMeasures(Struct, frozen=True, array_like=True):
    """The requests to one database."""

    #: Index into `Config.all_sinks()`.
    sink: Index
    #: Of its first server, without credentials.
    url: str
    outcomes: list[Outcome]
    #: Duration of a request, and size of its body.
    seconds: Histogram
    body_bytes: Histogram
    #: Requests in flight, and how many may be, now.
    in_flight: Count
    limit: Count

    def fits(self) -> bool:
        """Whether its histograms have the right buckets."""
        return self.seconds.fits(SECONDS) and self.body_bytes.fits(BYTES)


class Writing(Struct, frozen=True, tag=True):
    """Writer -> coordinator, once a second, if it has sent requests: for counters only."""

    targets: list[TargetMeasures]
    #: Batches in hand, and how many may be.
    batches: Count
    most_batches: Count
