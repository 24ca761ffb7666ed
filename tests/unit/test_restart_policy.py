"""When a process that died may start again, and when it is enough."""

from pipeline.supervisor.restart_policy import (
    EXCUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    MAX_BOOT_FAILURES,
    STEADY_SECONDS,
    RestartPolicy,
)


def test_the_first_restart_comes_at_once_and_later_ones_wait_longer() -> None:
    restarts = RestartPolicy(100, 60)
    pauses = [restarts.died("ingest", float(number), 0.5, True) for number in range(12)]
    assert pauses[0] == 0.0
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    assert restarts.died("write-0", 12.0, 0.5, True) == 0.0


def test_a_process_that_lived_long_begins_anew() -> None:
    restarts = RestartPolicy(100, 60)
    for number in range(5):
        restarts.died("ingest", float(number), 0.5, True)
    assert restarts.died("ingest", 100.0, STEADY_SECONDS, True) == 0.0


def test_too_many_deaths_are_counted_within_the_window_only() -> None:
    restarts = RestartPolicy(2, 10)
    for now in (0.0, 5.0, 11.0):
        restarts.died("encode-0", now, 1.0, True)
        assert not restarts.too_many(now + EXCUSE_SECONDS)
    restarts.died("encode-1", 12.0, 1.0, True)
    assert (restarts.deaths, restarts.too_many(12.0 + EXCUSE_SECONDS)) == (3, True)


def test_deaths_caused_by_a_message_do_not_count() -> None:
    restarts = RestartPolicy(2, 60)
    for number in range(3):
        restarts.died("encode-0", float(number), 0.5, True)
    assert not restarts.too_many(2.0 + EXCUSE_SECONDS / 2)
    restarts.excuse("encode-0", 2)
    assert (restarts.deaths, restarts.too_many(100.0)) == (1, False)
    assert restarts.died("encode-0", 3.0, 0.5, True) == 0.0
    restarts.died("encode-1", 4.0, 0.5, True)
    assert restarts.too_many(4.0 + EXCUSE_SECONDS)


def test_what_fails_before_its_first_hello_is_not_tried_for_ever() -> None:
    restarts = RestartPolicy(100, 60)
    for number in range(MAX_BOOT_FAILURES - 1):
        restarts.died("write-0", float(number), 0.1, False)
    assert not restarts.fails_at_boot("write-0")
    restarts.died("write-0", 8.0, 0.1, True)
    restarts.died("write-0", 9.0, 0.1, False)
    assert not restarts.fails_at_boot("write-0")
    for number in range(MAX_BOOT_FAILURES):
        restarts.died("write-1", 10.0 + number, 0.1, False)
    assert restarts.fails_at_boot("write-1")
