"""What the coordinator counts and measures for the Status: ages of messages, totals by topic, distributions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Config, TopicConfig
from pipeline.coordinator.measures import FURTHER, MAX_TARGETS, MAX_TOPICS, OTHER, Measures
from pipeline.coordinator.message_ages import MessageAges
from pipeline.sockets.peers import Peers
from pipeline.sockets.sink_rules import WireRules
from pipeline.subscriptions import Subscriptions
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire.measures import BYTES, SECONDS, Histogram

CONFIG = Config(topics=(TopicConfig(stream="s", topic="a"), TopicConfig(stream="s", topic="b")))
PARTITION = wire.Partition(0, 0)


def range_of(first: int, last: int, topic: int = 0) -> wire.Range:
    return wire.Range(1, wire.Partition(topic, 0), first, last, last - first + 1, 10)


def test_the_oldest_message_is_the_first_that_is_not_committed() -> None:
    ages = MessageAges()
    assert ages.oldest(PARTITION, -1) == 0
    for first in (0, 10, 20):
        ages.dispatched(wire.Dispatched(range_of(first, first + 9), (first + 1) * 1_000_000))
    assert ages.age(range_of(10, 19), 20.0) == 9.0
    assert ages.age(range_of(10, 18), 20.0) is None
    assert [ages.oldest(PARTITION, committed) for committed in (-1, 9, 15, 19)] == [
        1_000_000, 11_000_000, 11_000_000, 21_000_000]
    # What is dispatched is committed: what waits in Iggy is newer than that.
    assert ages.oldest(PARTITION, 29) == 21_000_000
    # The log was truncated: offsets begin again.
    ages.dispatched(wire.Dispatched(range_of(5, 9), 50_000_000))
    assert ages.oldest(PARTITION, 4) == 50_000_000
    ages.keep(lambda partition: False)
    assert ages.oldest(PARTITION, -1) == 0


def test_a_clock_of_iggy_that_is_ahead_makes_no_negative_age() -> None:
    ages = MessageAges()
    ages.dispatched(wire.Dispatched(range_of(0, 9), 99_000_000))
    assert ages.age(range_of(0, 9), 20.0) == 0.0


@given(st.lists(st.floats(0, 1e12)), st.lists(st.floats(0, 1e12)))
def test_a_histogram_counts_each_value_once(first: list[float], second: list[float]) -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for value in first:
        one.observe(value, BYTES)
    for value in second:
        other.observe(value, BYTES)
    for value in [*first, *second]:
        both.observe(value, BYTES)
    one.add(other)
    assert one.cumulative(BYTES) == both.cumulative(BYTES)
    assert math.isclose(one.sum, both.sum)
    found = dict(one.cumulative(BYTES))
    assert found[math.inf] == len(first) + len(second)
    assert all(found[bound] == sum(value <= bound for value in [*first, *second]) for bound in BYTES)


def test_totals_are_kept_by_topic() -> None:
    measures = Measures(CONFIG, Subscriptions(CONFIG))
    measures.dispatched(1, 10, 100)
    measures.encoded(wire.Encoded(7, 1, topics=[wire.EncodedTopic(0, 3, 1), wire.EncodedTopic(1, 4, 0)]))
    rejects = [wire.Reject(0, "not_json", ""), wire.Reject(1, "of a later version", "")]
    measures.settled(wire.Settled(range_of(0, 9, 1), 8, 70, rejects, wire.Overwritten(2)), 0.3, stores=True)
    a, b = measures.topics()
    assert (a.encoded, a.filtered, a.read, a.written) == (3, 1, 0, 0)
    assert (b.read, b.read_bytes, b.encoded, b.written, b.overwritten, b.sent_bytes) == (10, 100, 4, 8, 2, 70)
    assert (b.rejected, b.dead_lettered, b.batches) == ({"not_json": 1, OTHER: 1}, 2, 1)
    assert sum(measures.status().settled.counts) == 1


def test_topics_beyond_the_limit_are_counted_together() -> None:
    topics = tuple(TopicConfig(stream="s", topic=f"t{number}") for number in range(MAX_TOPICS + 5))
    config = Config(topics=topics)
    measures = Measures(config, Subscriptions(config))
    for topic in range(MAX_TOPICS + 5):
        measures.dispatched(topic, 2, 20)
    found = measures.topics()
    assert len(found) == MAX_TOPICS + 1
    assert (found[-1].stream, found[-1].topic, found[-1].read) == ("", FURTHER, 10)
    assert sum(one.read for one in found) == 2 * (MAX_TOPICS + 5)


def test_requests_are_counted_over_all_writers_and_bounded() -> None:
    measures = Measures(CONFIG, Subscriptions(CONFIG))

    def report(writer: str, url: str) -> None:
        measures.wrote(writer, wire.Writing([wire.TargetMeasures(
            0, url, [wire.Outcome(200, "accepted", False, 2)], Histogram(), Histogram(), 1, 4)], 3, 8))

    report("write-0", "http://h")
    report("write-1", "http://h")
    status = measures.status()
    assert [one.outcomes for one in status.targets] == [[wire.Outcome(200, "accepted", False, 4)]]
    assert [(one.name, one.batches, one.limit) for one in status.writers] == [("write-0", 3, 4), ("write-1", 3, 4)]
    measures.died("write-0")
    for number in range(MAX_TARGETS + 10):
        report("write-1", f"http://{number}")
    assert len(measures.status().targets) == MAX_TARGETS and len(measures.status().writers) == 1


def test_reports_with_other_buckets_or_topics_do_not_fit() -> None:
    rules = WireRules(CONFIG, 1)
    wrong = Histogram([1, 2, 3], 1.0)
    right = Histogram([0] * (len(SECONDS) + 1), 0.0)
    assert rules.control(wire.Encoded(1, measures=wire.EncodeMeasures(right, Histogram()))) == ""
    assert "other buckets" in rules.control(wire.Encoded(1, measures=wire.EncodeMeasures(right, wrong)))
    assert "a topic that there is not" in rules.control(wire.Encoded(1, topics=[wire.EncodedTopic(2, 1, 0)]))
    target = wire.TargetMeasures(1, "", [], right, Histogram(), 0, 0)
    assert "a sink that there is not" in rules.control(wire.Writing([target], 0, 0))


def test_what_is_waited_for_is_told_by_sink_with_the_time_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = Peers("coordinator")

    def waiting(now: float, *problems: common.Problem) -> list[tuple[str, str, float]]:
        monkeypatch.setattr("pipeline.sockets.peers.time.time", lambda: now)
        peers.retrying("write-0", common.Retrying("; ".join(one.reason for one in problems), False, list(problems)))
        return [(one.name, one.reason, one.since) for one in peers.status_fields(0.0)["waiting"]]

    assert waiting(100.0, common.Problem("a", "503")) == [("a", "503", 100.0)]
    # Another message about the same failure, and one about another sink.
    assert waiting(200.0, common.Problem("a", "timeout"), common.Problem("b", "401", True)) == [
        ("a", "timeout", 100.0), ("b", "401", 200.0)]
    assert waiting(300.0, common.Problem("b", "401", True)) == [("b", "401", 200.0)]
    assert waiting(400.0) == []
    assert waiting(500.0, common.Problem("a", "503")) == [("a", "503", 500.0)]
