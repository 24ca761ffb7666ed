"""The counters of the coordinator, and the Status made of them."""

from collections.abc import Mapping

from msgspec import Struct

from pipeline.config.schema import Subscription
from pipeline.coordinator.assignments import Assignments
from pipeline.coordinator.ledger import Ledger
from pipeline.coordinator.message_ages import MessageAges
from pipeline.coordinator.retention_watch import RetentionWatch
from pipeline.sockets.peers import Peers
from pipeline.subscriptions import Subscriptions
from pipeline.wire import sink as wire


class Counters(Struct):
    """Totals since the coordinator started."""

    #: Points.
    encoded: int = 0
    written: int = 0
    overwritten: int = 0
    #: Messages.
    filtered: int = 0
    rejected: int = 0
    ways: wire.Ways = wire.Ways()
    batches: int = 0
    redelivered: int = 0
    sent_bytes: int = 0
    #: When the first batch was dispatched and the last one settled: seconds, CLOCK_MONOTONIC; 0 before.
    first_dispatched_at: float = 0.0
    last_settled_at: float = 0.0

    def settled(self, message: wire.Settled, now: float) -> None:
        """Counts a batch that was settled for the first time."""
        self.last_settled_at = now
        self.batches += 1
        self.written += message.points
        self.sent_bytes += message.sent_bytes
        self.rejected += len(message.rejects)
        self.overwritten += message.overwritten.points


class Observed(Struct, frozen=True):
    """What other parts of the coordinator add to the Status, as it has it; and the names of the sinks."""

    sinks: list[str]
    rejects: list[wire.RejectStatus]
    topics: list[wire.TopicStatus]
    measures: wire.SinkMeasures
    tags: list[wire.TagStatus]


class Logs(Struct, frozen=True):
    """What is known of the partitions' logs."""

    #: Last offset of each at the last refresh.
    ends: Mapping[wire.Partition, int]
    ages: MessageAges
    retention: RetentionWatch
    #: Partitions that nobody reads.
    unread: list[wire.Unread]


def make_status(counters: Counters, ledger: Ledger, assignments: Assignments, topics: Subscriptions,
                logs: Logs, observed: Observed,
                peers: Peers, ready: bool, stopped: bool, fatal: str, dropped: int, now: float) -> wire.Status:
    """The Status at `now`.

    `ready`: all partitions are assigned and all processes run. `stopped`: ingest dispatches nothing more. `dropped`:
    messages that the coordinator has dropped.
    """
    return wire.Status(
        epoch=ledger.epoch, ready=ready and not peers.paused, drained=stopped and ledger.idle,
        read=ledger.dispatched_messages, encoded=counters.encoded, written=counters.written,
        rejected=counters.rejected, batches=counters.batches, sent_bytes=counters.sent_bytes,
        in_flight=ledger.in_flight_messages, in_flight_bytes=ledger.in_flight_bytes, redelivered=counters.redelivered,
        first_dispatched_at=counters.first_dispatched_at, last_settled_at=counters.last_settled_at,
        partitions=_partitions(ledger, topics, logs, observed.sinks), rejects=observed.rejects,
        topics=observed.topics, measures=observed.measures, tags=observed.tags,
        filtered=counters.filtered, overwritten=counters.overwritten,
        missed=assignments.missed, gaps=list(assignments.gaps), truncations=assignments.truncations, ways=counters.ways,
        unread=[wire.UnreadStatus(topics[one.partition.topic].stream, topics[one.partition.topic].topic,
                                  one.partition.number, one.why, one.lag) for one in logs.unread],
        fatal=fatal, dropped=dropped + peers.dropped, **peers.status_fields(now))


def _partitions(ledger: Ledger, topics: Subscriptions, logs: Logs, sinks: list[str]) -> list[wire.PartitionStatus]:
    positions = sorted(ledger.positions(), key=lambda position: (topics.place(position[0].topic), position[0].number))
    return [_partition(ledger, topics[partition.topic], partition, position, logs, sinks)
            for partition, position in positions]


def _partition(ledger: Ledger, topic: Subscription, partition: wire.Partition, position: int, logs: Logs,
               sinks: list[str]) -> wire.PartitionStatus:
    committed, retention = ledger.committed(partition), logs.retention
    return wire.PartitionStatus(
        topic.stream, topic.topic, partition.number, committed, position - 1,
        # The last refresh is older than what has been dispatched since.
        max(logs.ends.get(partition, -1), position - 1),
        logs.ages.oldest(partition, committed) or retention.oldest(partition), sinks[topic.sink],
        retention.first(partition), retention.overtaken_in(partition))
