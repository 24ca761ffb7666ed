"""How many requests a database gets at a time, and the pause after a failure."""

from pipeline.backoff import Backoff
from stages.influxdb.answers import Accepted, OperatorNeeded, Retry, TooLarge
from stages.influxdb.concurrency import ConcurrencyLimiter

DOWN = Retry("no_connection", "http://h: no connection")


def a_limiter(max_in_flight: int = 8) -> ConcurrencyLimiter:
    """A limiter whose pauses are 1, 2, 4 ... 16 seconds."""
    return ConcurrencyLimiter(max_in_flight, Backoff(1.0, 2.0, 16.0, lambda: 1.0), retry_after_max=60.0)


def answer(limiter: ConcurrencyLimiter, what: object, now: float, seconds: float = 0.01) -> None:
    """One request and its answer."""
    limiter.started()
    limiter.answered(what, 1_000, seconds, now)  # type: ignore[arg-type]


def test_quick_answers_allow_more_requests_up_to_the_maximum() -> None:
    limiter = a_limiter()
    for _ in range(100):
        answer(limiter, Accepted(), 0.0)
    assert limiter.limit == 8


def test_requests_double_with_every_round_until_one_is_slow() -> None:
    limiter = a_limiter(64)
    limits = []
    for _ in range(3):
        for _ in range(limiter.limit):
            answer(limiter, Accepted(), 0.0, seconds=1.0)
        limits.append(limiter.limit)
    assert limits == [4, 8, 16]
    answer(limiter, Accepted(), 0.0, seconds=9.0)
    before = limiter.limit
    for _ in range(before):
        answer(limiter, Accepted(), 0.0, seconds=1.0)
    assert limiter.limit in (before, before + 1)


def test_the_most_may_change_once_the_server_is_known() -> None:
    limiter = a_limiter(4)
    for most, limit in ((4, 4), (32, 32), (8, 8)):
        limiter.max_in_flight = most
        for _ in range(100):
            answer(limiter, Accepted(), 0.0)
        assert limiter.limit == limit


def test_overload_halves_the_requests_and_slowness_makes_them_fewer() -> None:
    limiter = a_limiter()
    for _ in range(100):
        answer(limiter, Accepted(), 0.0)
    answer(limiter, Retry("rate_limited", "429", 0.0), 0.0)
    answer(limiter, Accepted(), 100.0)
    assert limiter.limit == 4
    answer(limiter, Accepted(), 100.0, seconds=30.0)
    assert limiter.limit == 3


def test_a_failure_stops_sending_and_one_request_at_a_time_probes() -> None:
    limiter = a_limiter()
    limiter.started()
    limiter.started()
    limiter.answered(DOWN, 1, 0.01, now=10.0)
    limiter.answered(DOWN, 1, 0.01, now=10.0)
    assert not limiter.allows(10.9)
    assert limiter.wait(10.5) == 0.5
    assert limiter.allows(11.0)
    limiter.started()
    assert not limiter.allows(11.0)
    limiter.answered(DOWN, 1, 0.01, now=11.0)
    assert not limiter.allows(12.9)
    assert limiter.allows(13.0)
    answer(limiter, Accepted(), 13.0)
    assert limiter.problem == ""
    assert limiter.failures == 0
    assert limiter.allows(13.0)


def test_retry_after_is_followed_but_not_for_ever() -> None:
    limiter = a_limiter()
    answer(limiter, Retry("unavailable", "503", 30.0), now=0.0)
    assert limiter.wait(0.0) == 30.0
    answer(limiter, Retry("unavailable", "503", 86_400.0), now=30.0)
    assert limiter.wait(30.0) == 60.0


def test_a_pause_says_so_until_it_works_again() -> None:
    limiter = a_limiter()
    answer(limiter, OperatorNeeded("unauthorized", "401 unauthorized access"), now=0.0)
    assert limiter.paused
    assert "401" in limiter.problem
    answer(limiter, Accepted(), now=50.0)
    assert not limiter.paused


def test_the_largest_body_is_learned_and_only_gets_smaller() -> None:
    limiter = a_limiter()
    answer(limiter, TooLarge("413"), now=0.0)
    assert limiter.max_bytes == 750
    limiter.started()
    limiter.answered(TooLarge("413"), 400, 0.01, 0.0)
    assert limiter.max_bytes == 300
