"""Checks whether a message fits this pipeline: whether its sender may send it, and whether what it names exists. Pure.

`pipeline.wire.sink` bounds each number; here they are compared with each other and with the configuration. A message
that does not fit was sent by a process of another pipeline, or with another configuration, and is dropped.
"""

from collections.abc import Iterable, Iterator, Sized
from itertools import chain
from typing import Any, Final

from msgspec import Struct

from pipeline.config.schema import Config
from pipeline.fields.types import declared_types
from pipeline.subscriptions import FIRST_ID, Subscriptions
from pipeline.wire import common, payload_frame
from pipeline.wire import sink as wire

#: Kind of process -> messages that it may send to the coordinator.
MAY_SEND: Final[dict[str, tuple[type[Struct], ...]]] = {
    "supervisor": (common.Heartbeat, wire.ProcessDied, common.Drain),
    "ingest": (common.Heartbeat, wire.Started, wire.Truncated, wire.Gap, wire.Revoked, wire.Stored, wire.Failed,
               wire.Dispatched, wire.Progress, common.Retrying, wire.Settled, wire.Stopped, wire.Allowed),
    "encode": (common.Heartbeat, wire.FieldTypesRequest, wire.TagCardinalities, wire.Encoded, wire.Settled, wire.Join,
               wire.Leave, wire.GaveUp, wire.Restarted),
    "write": (common.Heartbeat, wire.Settled, wire.Writing, common.Retrying, wire.Allowed),
    "dead-letter": (common.Heartbeat, wire.DeadLettersStored, common.Retrying),
}
#: Messages of a process that has been replaced that remain true.
LEFT_BEHIND: Final = (wire.Settled, wire.Encoded, wire.DeadLettersStored)
#: About a topic that a pattern has found, and this process does not know: its definition is on its way, or it was sent
#: to a process that has died. It is ignored, and not counted as invalid.
NOT_FOUND_YET: Final = "it names a topic whose definition is not known yet"
#: Longest name of a process, characters.
MAX_NAME: Final = 200
_GZIP: Final = b"\x1f\x8b"


def kind_of(name: str) -> str:
    """The kind of a process: "encode" for "encode-1"."""
    return name if name in MAY_SEND else name.partition("-")[0]


class WireRules:
    """The sizes of one pipeline that messages are compared with. Each method returns what is wrong, or ""."""

    def __init__(self, config: Config, ingests: int, topics: Subscriptions | None = None) -> None:
        """`ingests`: number of ingest processes. The `topics` learn those that messages define."""
        self._topics = Subscriptions(config) if topics is None else topics
        self._sinks = len(config.all_sinks())
        self._ingests = ingests
        self._namespaces = frozenset(declared_types(config))
        sinks = config.all_sinks()
        #: By sink: whether bodies are compressed.
        self._gzip = [sink.influxdb.gzip for sink in sinks]

    def sender(self, name: str, message: wire.Control) -> str:
        """Whether a process may send this to the coordinator. The name is "" for one that has been replaced."""
        allowed = MAY_SEND.get(kind_of(name), ()) if name else LEFT_BEHIND
        kind = type(message).__name__
        if not isinstance(message, allowed):
            return f"processes of this kind send no {kind}"
        match message:
            case common.Heartbeat(name=own) | wire.Join(name=own) | wire.Leave(name=own) if own != name:
                return f"{kind} in the name of another process"
            case wire.Settled(points=points, sent_bytes=size) if kind_of(name) in ("encode", "ingest") \
                    and (points or size):
                return "only writers write points"
        return ""

    def control(self, message: wire.Control) -> str:
        """Whether everything that a control message names exists."""
        match message:
            case wire.Dispatched(range=range_) | wire.DeadLettersStored(range=range_) | wire.GaveUp(range=range_):
                return self.range(range_)
            case wire.StoreDeadLetters(range=range_, rejects=rejects, found=found):
                return self._learn(found) or self.range(range_) or _rejects(range_, rejects)
            case wire.Settled(range=range_, rejects=rejects):
                return self.range(range_) or _rejects(range_, rejects)
            case wire.Started(topics=topics) | wire.Assign(topics=topics) if topics:
                if wrong := next(filter(None, map(self._learn, topics)), ""):
                    return wrong
            case wire.Redeliver(ranges=ranges):
                return next(filter(None, map(self.range, ranges)), "")
            case wire.ProcessDied(work=ranges) | wire.Restarted(work=ranges):
                # A new coordinator has to know of a death before it learns which topics there are.
                return next((wrong for wrong in map(self.range, ranges) if wrong and wrong != NOT_FOUND_YET), "")
            case wire.TagCardinalities(sink=sink) | wire.OverLimit(sink=sink):
                return "" if sink < self._sinks else f"there is no sink {sink}"
            case wire.Encoded(topics=topics, measures=measures):
                if any(one.topic not in self._topics for one in topics) or (
                        measures is not None and not measures.fits()):
                    return "it counts for a topic that there is not, or in other buckets"
            case wire.Writing(targets=targets):
                if any(one.sink >= self._sinks or not one.fits() for one in targets):
                    return "it counts for a sink that there is not, or in other buckets"
            case wire.FieldTypesRequest(namespace=namespace):
                return "" if namespace in self._namespaces else "it names a bucket that no sink writes to"
            case wire.Gap(first=first, last=last) if first > last:
                return "it ends before it starts"
        return self._partitions(_partitions_in(message))

    def batch(self, batch: wire.Batch, joined: Sized, lengths: Any) -> str:
        """Whether a batch is complete. `joined`: its payloads, joined by `payload_frame`, with these `lengths`."""
        if not payload_frame.fits(joined, lengths):
            return "its payloads do not have their lengths"
        count = payload_frame.count(lengths)
        for each in (batch.offsets, batch.timestamps, batch.headers):
            if each is not None and len(each) != count:
                return f"{len(each)} entries for {count} messages"
        return (self._learn(batch.found) or self.range(batch.range)
                or _offsets(batch.range, batch.first, batch.offsets, count))

    def lines(self, lines: wire.Lines, bodies: list[bytes]) -> str:
        """Whether lines are complete."""
        if wrong := next(filter(None, map(self._part, lines.parts)), ""):
            return wrong
        sinks = {self._topics[part.range.partition.topic].sink for part in lines.parts}
        if len(sinks) > 1:
            return "it has lines of several sinks"
        count = sum([part.messages for part in lines.parts])
        if sum([part.points for part in lines.parts]) != sum([group.points for group in lines.buckets]):
            return "its parts have another number of lines"
        for group, body in zip(lines.buckets, bodies, strict=True):
            if self._gzip[min(sinks)] != body.startswith(_GZIP):
                return "its compression is not the configured one"
            if group.messages is not None and len(group.messages) != group.points:
                return f"{len(group.messages)} indices for {group.points} points"
            messages = chain.from_iterable(group.messages) if group.messages is not None else (group.points - 1,)
            if not group.points or max(messages, default=0) >= count:
                return "it has lines without a message"
        return ""

    def _part(self, part: wire.LinesPart) -> str:
        if wrong := self._learn(part.found) or self.range(part.range) or _rejects(part.range, part.rejects):
            return wrong
        if part.offsets is not None and len(part.offsets) != part.messages:
            return f"{len(part.offsets)} offsets for {part.messages} messages"
        return _offsets(part.range, part.first, part.offsets, part.messages)

    def range(self, range_: wire.Range) -> str:
        """Whether a range is valid."""
        if range_.ingest >= self._ingests:
            return f"there is no ingest process {range_.ingest}"
        if not 0 < range_.messages <= range_.last - range_.first + 1:
            return f"{range_.messages} messages from offset {range_.first} to {range_.last}"
        return self._partitions((range_.partition,))

    def _partitions(self, partitions: Iterable[wire.Partition]) -> str:
        absent = next((partition.topic for partition in partitions if partition.topic not in self._topics), None)
        if absent is not None and absent >= FIRST_ID:
            return NOT_FOUND_YET
        return "" if absent is None else f"there is no topic {absent}"

    def _learn(self, found: wire.FoundTopic | None) -> str:
        """Adds a topic that a message defines. Returns why it cannot be one, or ""."""
        try:
            if found is not None:
                self._topics.learn(found)
        except ValueError as error:
            return str(error)
        return ""


def _partitions_in(message: wire.Control) -> Iterator[wire.Partition]:
    """The partitions that a message names."""
    match message:
        case wire.Started(partitions=starts):
            yield from (start.partition for start in starts)
        case wire.Revoked(partitions=partitions) | wire.Unassigned(partitions=partitions):
            yield from partitions
        case wire.Assign(positions=positions) | wire.Seek(positions=positions):
            yield from (position.partition for position in positions)
        case wire.Progress(ends=ends, unread=unread):
            yield from (partition for partition, _ in ends)
            yield from (one.partition for one in unread)
        case wire.Truncated() | wire.Gap() | wire.Store() | wire.Stored():
            yield message.partition


def _rejects(range_: wire.Range, rejects: list[wire.Reject]) -> str:
    if len(rejects) > range_.messages:
        return f"{len(rejects)} rejects of {range_.messages} messages"
    if any(not range_.first <= reject.offset <= range_.last for reject in rejects):
        return "a reject is outside of its range"
    return ""


def _offsets(range_: wire.Range, first: int, offsets: list[int] | None, count: int) -> str:
    """Whether the offsets of messages are within a range."""
    least, most = (min(offsets), max(offsets)) if offsets else (first, first + count - 1)
    return "" if range_.first <= least and most <= range_.last else "its messages are outside of its range"
