"""Who hangs, as told by what was heard of whom."""

from typing import Any

import msgspec

from pipeline.supervisor.watchdog import BOOT_SECONDS, CONFIRM_SECONDS, Watchdog
from pipeline.wire import sink as wire

PIDS = {"coordinator": 1, "ingest": 2, "write-0": 3}
TIMEOUT = 5.0


def status(now: float, **heard: float) -> wire.Status:
    """A Status sent at `now`; everybody has said Hello, and was last heard of at `now` unless said otherwise."""
    empty: dict[str, Any] = {field.name: 0 for field in msgspec.structs.fields(wire.Status) if field.required}
    known: dict[str, Any] = {"ready": True, "drained": False, "paused": False, "pids": PIDS, "startup_cpu": {},
                             "retrying": {}, "partitions": []}
    return wire.Status(**{**empty, **known}, now=now, last_heard={**dict.fromkeys(PIDS, now), **heard})


def a_watchdog() -> Watchdog:
    """All started at 0, all heard of at 10."""
    watchdog = Watchdog(TIMEOUT)
    for name in PIDS:
        watchdog.started(name, 0.0)
    watchdog.received(status(10.0), 10.0)
    assert watchdog.hung(PIDS, 10.0) == []
    return watchdog


def test_a_process_that_is_silent_is_found_after_the_timeout_and_only_it() -> None:
    watchdog = a_watchdog()
    watchdog.received(status(14.0, ingest=10.0), 14.0)
    assert watchdog.hung(PIDS, 14.0) == []
    for now in (16.0, 16.0 + CONFIRM_SECONDS):
        watchdog.received(status(now, ingest=10.0), now)
        found = watchdog.hung(PIDS, now)
    assert found == ["ingest"]


def test_a_silence_that_ends_before_it_is_confirmed_is_none() -> None:
    watchdog = a_watchdog()
    watchdog.received(status(60.0, **{"ingest": 10.0, "write-0": 10.0}), 60.0)
    assert watchdog.hung(PIDS, 60.0) == []
    watchdog.received(status(63.0), 63.0)
    assert watchdog.hung(PIDS, 63.0) == []


def test_without_a_status_the_coordinator_hangs_and_nobody_else() -> None:
    watchdog = a_watchdog()
    assert watchdog.hung(PIDS, 10.0 + TIMEOUT + 0.1) == []
    assert watchdog.hung(PIDS, 10.0 + TIMEOUT + CONFIRM_SECONDS + 0.2) == ["coordinator"]


def test_a_new_coordinator_and_those_that_report_to_it_get_time_to_start() -> None:
    watchdog = a_watchdog()
    watchdog.started("coordinator", 20.0)
    pids = {**PIDS, "coordinator": 9}
    assert watchdog.hung(pids, 20.0 + BOOT_SECONDS - 1) == []
    now = 20.0 + BOOT_SECONDS - 1
    watchdog.received(msgspec.structs.replace(status(now), pids={"coordinator": 9}, last_heard={}), now)
    assert watchdog.hung(pids, now) == []


def test_a_process_that_never_says_hello_hangs_after_its_time_to_boot() -> None:
    watchdog = a_watchdog()
    watchdog.started("write-0", 10.0)
    pids = {**PIDS, "write-0": 33}
    for now in (10.0 + BOOT_SECONDS - 1, 11.0 + BOOT_SECONDS, 11.0 + BOOT_SECONDS + CONFIRM_SECONDS):
        watchdog.received(status(now), now)
        found = watchdog.hung(pids, now)
    assert found == ["write-0"]
