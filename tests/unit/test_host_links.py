"""The rules of the switch between hosts, and how long a partition stands still."""

import random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.testbed.chaos.progress import StandstillClock
from pipeline.testbed.hosts.rules import ANY, LinkRule, around, cut, delay_of

HOSTS = ("iggy", "influxdb", "pipeline-1")
RNG = random.Random(1)


def test_a_cut_link_loses_all_frames_of_both_directions_and_no_others() -> None:
    rules = cut("pipeline-1", "iggy")
    lost = {(source, destination) for source in HOSTS for destination in HOSTS
            if delay_of(rules, source, destination, RNG) is None}
    assert lost == {("pipeline-1", "iggy"), ("iggy", "pipeline-1")}


def test_one_way_loss_lets_the_other_way_pass() -> None:
    rules = [LinkRule(source="iggy", destination="pipeline-1", loss=1.0)]
    assert delay_of(rules, "iggy", "pipeline-1", RNG) is None
    assert delay_of(rules, "pipeline-1", "iggy", RNG) == 0


def test_delays_add_up() -> None:
    rules = [*around("iggy", delay_seconds=0.2), LinkRule(source=ANY, delay_seconds=0.1)]
    assert delay_of(rules, "pipeline-1", "influxdb", RNG) == 0.1
    assert abs((delay_of(rules, "pipeline-1", "iggy", RNG) or 0) - 0.3) < 1e-9


def test_a_share_of_the_frames_is_lost() -> None:
    rules = around("iggy", loss=0.02)
    lost = sum(delay_of(rules, "iggy", "influxdb", RNG) is None for _ in range(10_000))
    assert 100 < lost < 300


def test_a_standstill_lasts_from_the_first_waiting_message_to_the_next_commit() -> None:
    clock = StandstillClock()
    for committed, last, now in [(-1, -1, 0), (-1, 4, 10), (-1, 9, 13), (4, 9, 15), (9, 9, 16), (9, 9, 90)]:
        clock.look(committed, last, now)
    assert clock.longest == 3


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 10))))
def test_a_partition_without_waiting_messages_never_stands_still(steps: list[tuple[int, int, float]]) -> None:
    clock, last, committed, now, waiting = StandstillClock(), -1, -1, 0.0, 0.0
    for sent, settled, seconds in steps:
        now += seconds
        waiting += seconds
        last += sent
        committed = min(last, committed + settled)
        clock.look(committed, last, now)
        if committed == last:
            waiting = 0.0
        assert 0 <= clock.longest <= now
    if waiting == 0.0:
        before = clock.longest
        clock.look(last, last, now + 1_000)
        assert clock.longest == before
