"""How many requests a database gets, and when it is left alone."""

from pipeline.backoff import Backoff
from stages.influxdb.answers import Accepted, OperatorNeeded, Retry, TooLarge
from stages.influxdb.concurrency import ConcurrencyLimiter

DOWN = Retry("no_connection", "http://h: no connection")


def a_pace(most: int = 8) -> ConcurrencyLimiter:
    """A pace whose pauses are 1, 2, 4 ... 16 seconds."""
    return ConcurrencyLimiter(most, Backoff(1.0, 2.0, 16.0, lambda: 1.0), retry_after_max=60.0)


def answer(pace: ConcurrencyLimiter, what: object, now: float, seconds: float = 0.01) -> None:
    """One request and its answer."""
    pace.started()
    pace.answered(what, 1_000, seconds, now)  # type: ignore[arg-type]


def test_quick_answers_allow_more_requests_up_to_the_maximum() -> None:
    pace = a_pace()
    for _ in range(100):
        answer(pace, Accepted(), 0.0)
    assert pace.limit == 8


def test_requests_double_with_every_round_until_one_is_slow() -> None:
    pace = a_pace(64)
    limits = []
    for _ in range(3):
        for _ in range(pace.limit):
            answer(pace, Accepted(), 0.0, seconds=1.0)
        limits.append(pace.limit)
    assert limits == [4, 8, 16]
    answer(pace, Accepted(), 0.0, seconds=9.0)
    before = pace.limit
    for _ in range(before):
        answer(pace, Accepted(), 0.0, seconds=1.0)
    assert pace.limit in (before, before + 1)


def test_the_most_may_change_once_the_server_is_known() -> None:
    pace = a_pace(4)
    for most, limit in ((4, 4), (32, 32), (8, 8)):
        pace.most = most
        for _ in range(100):
            answer(pace, Accepted(), 0.0)
        assert pace.limit == limit


def test_overload_halves_the_requests_and_slowness_makes_them_fewer() -> None:
    pace = a_pace()
    for _ in range(100):
        answer(pace, Accepted(), 0.0)
    answer(pace, Retry("rate_limited", "429", 0.0), 0.0)
    answer(pace, Accepted(), 100.0)
    assert pace.limit == 4
    answer(pace, Accepted(), 100.0, seconds=30.0)
    assert pace.limit == 3


def test_a_failure_stops_sending_and_one_request_at_a_time_probes() -> None:
    pace = a_pace()
    pace.started()
    pace.started()
    pace.answered(DOWN, 1, 0.01, now=10.0)
    pace.answered(DOWN, 1, 0.01, now=10.0)
    assert not pace.allows(10.9)
    assert pace.wait(10.5) == 0.5
    assert pace.allows(11.0)
    pace.started()
    assert not pace.allows(11.0)
    pace.answered(DOWN, 1, 0.01, now=11.0)
    assert not pace.allows(12.9)
    assert pace.allows(13.0)
    answer(pace, Accepted(), 13.0)
    assert pace.problem == ""
    assert pace.failures == 0
    assert pace.allows(13.0)


def test_retry_after_is_followed_but_not_for_ever() -> None:
    pace = a_pace()
    answer(pace, Retry("unavailable", "503", 30.0), now=0.0)
    assert pace.wait(0.0) == 30.0
    answer(pace, Retry("unavailable", "503", 86_400.0), now=30.0)
    assert pace.wait(30.0) == 60.0


def test_a_pause_says_so_until_it_works_again() -> None:
    pace = a_pace()
    answer(pace, OperatorNeeded("unauthorized", "401 unauthorized access"), now=0.0)
    assert pace.paused
    assert "401" in pace.problem
    answer(pace, Accepted(), now=50.0)
    assert not pace.paused


def test_the_largest_body_is_learned_and_only_gets_smaller() -> None:
    pace = a_pace()
    answer(pace, TooLarge("413"), now=0.0)
    assert pace.max_bytes == 750
    pace.started()
    pace.answered(TooLarge("413"), 400, 0.01, 0.0)
    assert pace.max_bytes == 300
