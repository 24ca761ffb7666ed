"""What a writer counts of its requests, for the coordinator."""

from collections import Counter
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

from pipeline.wire import sink as wire
from pipeline.wire.measures import BYTES, SECONDS, Histogram
from stages.influxdb.answers import Accepted, Answer, OperatorNeeded, Retry, TooLarge
from stages.write.target import Target

#: Seconds between two reports.
REPORT_SECONDS = 1.0


class _Requests(Struct):
    """Of one database, since the last report."""

    sink: int
    target: Target
    outcomes: Counter[tuple[int, str, bool]]
    seconds: Histogram
    body_bytes: Histogram

    def clear(self) -> None:
        self.outcomes, self.seconds, self.body_bytes = Counter(), Histogram(), Histogram()


class RequestMeasures:
    """The requests of one writer."""

    def __init__(self, targets: Sequence[Iterable[Target]]) -> None:
        """`targets`: the databases of each sink."""
        self._requests = {id(target): _Requests(sink, target, Counter(), Histogram(), Histogram())
                          for sink, some in enumerate(targets) for target in some}
        self._due, self._batches = 0.0, 0

    def answered(self, target: Target, answer: Answer, size: int, seconds: float) -> None:
        """A request of `size` bytes was answered, or has failed, after `seconds`."""
        found = self._requests[id(target)]
        found.outcomes[outcome_of(answer)] += 1
        found.seconds.observe(seconds, SECONDS)
        found.body_bytes.observe(size, BYTES)

    def report(self, batches: int, most_batches: int, now: float) -> wire.Writing | None:
        """What is new at `now` (seconds, monotonic); None if nothing is, or the last report was just before."""
        if now < self._due or (batches == self._batches and not any(
                one.outcomes for one in self._requests.values())):
            return None
        self._due, self._batches = now + REPORT_SECONDS, batches
        message = wire.Writing([_measures(one) for one in self._requests.values()], batches, most_batches)
        for one in self._requests.values():
            one.clear()
        return message


def _measures(one: _Requests) -> wire.TargetMeasures:
    limiter = one.target.limiter
    return wire.TargetMeasures(
        one.sink, without_user(one.target.transport.urls[0]),
        [wire.Outcome(*outcome, count) for outcome, count in one.outcomes.items()], one.seconds, one.body_bytes,
        limiter.in_flight, limiter.limit)


def outcome_of(answer: Answer) -> tuple[int, str, bool]:
    """HTTP status (200: any success; 0: no answer), outcome, and whether the request is repeated."""
    if isinstance(answer, Accepted):
        return 200, "accepted", False
    if isinstance(answer, Retry | OperatorNeeded):
        return answer.status, answer.reason, True
    return answer.status, "too_large" if isinstance(answer, TooLarge) else "bad_lines", False


def without_user(url: str) -> str:
    """A URL without credentials, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
