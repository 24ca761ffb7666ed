"""Totals by topic, distributions, and what the writers report: for the Status. Pure."""

from typing import Final

from msgspec import Struct

from pipeline.config.schema import Config
from pipeline.reasons import REASONS
from pipeline.subscriptions import Subscriptions
from pipeline.wire import sink as wire
from pipeline.wire.measures import BYTES, MESSAGES, SECONDS, Histogram

#: Databases and ways in which requests end, at most; more would be those of a process of another pipeline.
MAX_TARGETS, MAX_OUTCOMES = 1_000, 100
#: Topics with totals of their own, at most; and the name of all further ones of a sink together.
MAX_TOPICS: Final = 1_000
FURTHER: Final = "(further topics)"
#: In place of a reason that is not in REASONS.
OTHER: Final = "other"


class _Topic(Struct):
    """As `wire.TopicStatus`."""

    read: int = 0
    read_bytes: int = 0
    encoded: int = 0
    written: int = 0
    overwritten: int = 0
    filtered: int = 0
    dead_lettered: int = 0
    rejected: dict[str, int] = {}
    sent_bytes: int = 0
    batches: int = 0


class _Target(Struct):
    outcomes: dict[tuple[int, str, bool], int]
    seconds: Histogram
    body_bytes: Histogram


class Measures:
    """Everything since the coordinator started. Indices are checked by `pipeline.sockets.sink_rules`."""

    def __init__(self, config: Config, subscriptions: Subscriptions) -> None:
        #: Their names.
        self.sinks = [sink.name for sink in config.all_sinks()]
        self._subscriptions = subscriptions
        #: By topic.
        self._topics = {topic: _Topic(rejected={}) for topic in list(subscriptions)[:MAX_TOPICS]}
        #: By sink: of the topics beyond MAX_TOPICS, together.
        self._further: dict[int, _Topic] = {}
        self._encoders = wire.EncodeMeasures(Histogram(), Histogram())
        self._settled, self._batch_messages, self._batch_bytes = Histogram(), Histogram(), Histogram()
        #: By sink and URL.
        self._targets: dict[tuple[int, str], _Target] = {}
        self._writers: dict[str, wire.WriterStatus] = {}

    def dispatched(self, topic: int, messages: int, size: int) -> None:
        """Messages were dispatched for the first time."""
        found = self._of(topic)
        found.read += messages
        found.read_bytes += size

    def encoded(self, message: wire.Encoded) -> None:
        """An encoder has reported."""
        for one in message.topics:
            found = self._of(one.topic)
            found.encoded += one.points
            found.filtered += one.filtered
        if message.measures is not None:
            self._encoders.add(message.measures)

    def settled(self, message: wire.Settled, age: float | None, stores: bool) -> None:
        """A batch was settled for the first time. `age`: seconds since Iggy stored its newest message; `stores`: its
        rejects were stored as dead letters."""
        range_ = message.range
        found = self._of(range_.partition.topic)
        found.batches += 1
        found.written += message.points
        found.overwritten += message.overwritten.points
        found.sent_bytes += message.sent_bytes
        for reject in message.rejects:
            reason = reject.reason if reject.reason in REASONS else OTHER
            found.rejected[reason] = found.rejected.get(reason, 0) + 1
        if stores:
            found.dead_lettered += len(message.rejects)
        self._batch_messages.observe(range_.messages, MESSAGES)
        self._batch_bytes.observe(range_.bytes, BYTES)
        if age is not None:
            self._settled.observe(age, SECONDS)

    def wrote(self, writer: str, message: wire.Writing) -> None:
        """A writer has reported."""
        for one in message.targets:
            if (one.sink, one.url) not in self._targets and len(self._targets) >= MAX_TARGETS:
                continue
            found = self._targets.setdefault((one.sink, one.url), _Target({}, Histogram(), Histogram()))
            for outcome in one.outcomes:
                key = (outcome.status, outcome.outcome, outcome.retried)
                if key in found.outcomes or len(found.outcomes) < MAX_OUTCOMES:
                    found.outcomes[key] = found.outcomes.get(key, 0) + outcome.count
            found.seconds.add(one.seconds)
            found.body_bytes.add(one.body_bytes)
        self._writers[writer] = wire.WriterStatus(
            writer, message.batches, message.most_batches, sum([one.in_flight for one in message.targets]),
            sum([one.limit for one in message.targets]))

    def died(self, name: str) -> None:
        """A process has ended: what a writer had in hand is lost, and read again."""
        self._writers.pop(name, None)

    def topics(self) -> list[wire.TopicStatus]:
        """The totals of all topics, those beyond MAX_TOPICS as FURTHER."""
        return [*(_topic_status(self.sinks[subscription.sink], subscription.stream, subscription.topic, self._of(topic))
                  for topic in sorted(self._subscriptions, key=self._subscriptions.place)
                  if (topic in self._topics or len(self._topics) < MAX_TOPICS)
                  and (subscription := self._subscriptions[topic])),
                *(_topic_status(self.sinks[sink], "", FURTHER, found) for sink, found in self._further.items())]

    def _of(self, topic: int) -> _Topic:
        """The totals of a topic. Whether it has its own never changes: totals must not become smaller."""
        found = self._topics.get(topic)
        if found is not None:
            return found
        if len(self._topics) < MAX_TOPICS:
            return self._topics.setdefault(topic, _Topic(rejected={}))
        return self._further.setdefault(self._subscriptions[topic].sink, _Topic(rejected={}))

    def status(self) -> wire.SinkMeasures:
        """The distributions, and what the writers do."""
        return wire.SinkMeasures(
            self._encoders.wait, self._encoders.encode, self._settled, self._batch_messages, self._batch_bytes,
            [wire.TargetStatus(self.sinks[sink], url,
                               [wire.Outcome(*key, count) for key, count in found.outcomes.items()],
                               found.seconds, found.body_bytes) for (sink, url), found in self._targets.items()],
            self._sorted_writers())

    def _sorted_writers(self) -> list[wire.WriterStatus]:
        return [self._writers[name] for name in sorted(self._writers)]


def _topic_status(sink: str, stream: str, topic: str, found: _Topic) -> wire.TopicStatus:
    return wire.TopicStatus(
        sink, stream, topic, found.read, found.read_bytes, found.encoded, found.written,
        found.overwritten, found.filtered, found.dead_lettered, dict(found.rejected), found.sent_bytes, found.batches)
