"""Requests that last are named while they do."""

from stages.write.requests_watch import LONG_SECONDS, REMIND_SECONDS, RequestsWatch


def test_a_request_that_lasts_is_named_once_and_again_from_time_to_time() -> None:
    watch: RequestsWatch[str] = RequestsWatch(40.0)
    watch.sent("a", 100.0)
    watch.sent("b", 105.0)
    assert watch.due(100.0 + LONG_SECONDS - 0.1) == []
    assert not watch.has_long(100.0 + LONG_SECONDS - 0.1)
    assert watch.due(100.0 + LONG_SECONDS) == [("a", LONG_SECONDS)]
    assert watch.has_long(100.0 + LONG_SECONDS)
    assert watch.due(100.1 + LONG_SECONDS) == []
    assert watch.due(100.0 + LONG_SECONDS + REMIND_SECONDS) == [("a", LONG_SECONDS + REMIND_SECONDS),
                                                                   ("b", LONG_SECONDS + REMIND_SECONDS - 5.0)]


def test_an_answered_request_is_not_named() -> None:
    watch: RequestsWatch[str] = RequestsWatch(40.0)
    watch.sent("a", 0.0)
    watch.ended("a")
    watch.ended("never sent")
    assert watch.due(1_000.0) == [] and not watch.has_long(1_000.0)


def test_a_request_is_named_before_it_is_given_up_however_short_its_time_is() -> None:
    watch: RequestsWatch[str] = RequestsWatch(1.0)
    watch.sent("a", 0.0)
    assert watch.due(0.5) == [("a", 0.5)]
