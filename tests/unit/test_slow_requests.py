"""Slow requests are logged while they are in flight."""

from stages.write.slow_requests import REMIND_SECONDS, SLOW_SECONDS, SlowRequests


def test_a_slow_request_is_logged_once_and_again_from_time_to_time() -> None:
    slow: SlowRequests[str] = SlowRequests(40.0)
    slow.started("a", 100.0)
    slow.started("b", 105.0)
    assert slow.to_log(100.0 + SLOW_SECONDS - 0.1) == []
    assert not slow.any(100.0 + SLOW_SECONDS - 0.1)
    assert slow.to_log(100.0 + SLOW_SECONDS) == [("a", SLOW_SECONDS)]
    assert slow.any(100.0 + SLOW_SECONDS)
    assert slow.to_log(100.1 + SLOW_SECONDS) == []
    assert slow.to_log(100.0 + SLOW_SECONDS + REMIND_SECONDS) == [("a", SLOW_SECONDS + REMIND_SECONDS),
                                                                   ("b", SLOW_SECONDS + REMIND_SECONDS - 5.0)]


def test_an_answered_request_is_not_logged() -> None:
    slow: SlowRequests[str] = SlowRequests(40.0)
    slow.started("a", 0.0)
    slow.ended("a")
    slow.ended("never sent")
    assert slow.to_log(1_000.0) == [] and not slow.any(1_000.0)


def test_a_request_is_logged_before_its_deadline_however_short_that_is() -> None:
    slow: SlowRequests[str] = SlowRequests(1.0)
    slow.started("a", 0.0)
    assert slow.to_log(0.5) == [("a", 0.5)]
