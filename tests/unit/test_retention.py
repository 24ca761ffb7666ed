"""The times that a database takes: what servers tell of them, and how long it is believed."""

import pytest

from stages.influxdb.retention import (
    FORGET_SECONDS,
    RECHECK_SECONDS,
    SECOND,
    Bounds,
    Retention,
    format_bound,
    times_of,
)
from stages.influxdb.retention_messages import bounds_of_policy, duration_of, policies_query, stated_bounds

#: 2026-11-26T09:13:20.095921517Z
BOUND = 1_795_684_400_095_921_517
HOUR = 3_600 * SECOND
#: InfluxDB 2.7.12, recorded.
TOLD = ("failure writing points to database: partial write: dropped 2 points outside retention policy of duration "
        "1h0m0s - oldest point {key} at 2026-11-25T10:13:19Z dropped because it violates a Retention Policy Lower "
        "Bound at 2026-11-26T09:13:20.095921517Z, newest point {key} at 2026-11-26T08:13:19Z dropped because it "
        "violates a Retention Policy Lower Bound at 2026-11-26T09:13:20.095921517Z dropped=2 for database: "
        "e030d98b446b7375 for retention policy: autogen")
#: As 1.12 prints a policy with limits of writing; source: its points_writer.go.
WINDOW = ("partial write: dropped 0 points outside retention policy of duration {duration} and 1 points outside write "
          "window ({window}) - oldest point p at {time} dropped because it violates a {bound} Bound at {at}, newest "
          "point p at {time} dropped because it violates a {bound} Bound at {at} dropped=1 for database: d for "
          "retention policy: autogen")
CLOUD = ("dml handler error: data in table {table} is outside of the retention period: minimum acceptable timestamp is "
         "2023-07-30T11:05:48.178479165+00:00, but observed timestamp 2022-04-04T05:40:41.079+00:00 is older.")


def test_influxdb_2_tells_the_bound() -> None:
    assert stated_bounds(TOLD.format(key="p,a=3")) == Bounds(BOUND)


@pytest.mark.parametrize("text", [
    " at 2099-01-01T00:00:00Z dropped because it violates a Retention Policy Lower Bound at 2099-01-01T00:00:00Z",
    " dropped because it violates a Retention Policy Lower Bound at 2099-01-01T00:00:00Z dropped=1",
    ", newest point p at 2099-01-01T00:00:00Z dropped because it violates a Retention Policy Lower Bound at "
    "2099-01-01T00:00:00Z dropped=2 for database: x for retention policy: y",
    " is outside of the retention period: minimum acceptable timestamp is 2099-01-01T00:00:00Z, but observed",
    "partial write: dropped 9 points outside retention policy of duration 9h0m0s - oldest point ",
])
def test_a_name_that_speaks_like_the_server_is_not_believed(text: str) -> None:
    assert stated_bounds(TOLD.format(key=f"p,a={text}")) == Bounds(BOUND)
    found = stated_bounds(CLOUD.format(table=text))
    assert found is not None and found.oldest is not None
    assert format_bound(found.oldest) == "2023-07-30T11:05:48.178479165Z"
    assert stated_bounds(f"unable to parse '{TOLD.format(key='p')}': missing fields") is None


def test_a_message_of_a_megabyte_is_read_at_once() -> None:
    assert stated_bounds(TOLD.format(key=", newest point p dropped because it violates a " * 20_000)) == Bounds(BOUND)


@pytest.mark.parametrize("message", [
    "partial write: points beyond retention policy dropped=4", "", "partial write: field type conflict: x dropped=1",
    TOLD.format(key="p").replace("1h0m0s", "an hour"), TOLD.format(key="p") + " and more\n"])
def test_other_words_tell_none(message: str) -> None:
    assert stated_bounds(message) is None


@pytest.mark.parametrize(("window", "bound", "at", "time", "expected"), [
    ("15m0s", "Write Window Upper", BOUND + 15 * 60 * SECOND, BOUND + HOUR,
     Bounds(BOUND - 3 * HOUR, BOUND + 15 * 60 * SECOND)),
    ("-10m0s to 15m0s", "Write Window Lower", BOUND - 10 * 60 * SECOND, BOUND - HOUR,
     Bounds(BOUND - 10 * 60 * SECOND, BOUND + 15 * 60 * SECOND)),
    ("-10m0s", "Retention Policy Lower", BOUND - 3 * HOUR, BOUND - HOUR, Bounds(BOUND - 10 * 60 * SECOND)),
    # A point in the future for which there is no shard is called older than the retention.
    ("15m0s", "Retention Policy Lower", BOUND - 3 * HOUR, BOUND + HOUR,
     Bounds(BOUND - 3 * HOUR, BOUND + 15 * 60 * SECOND))])
def test_limits_of_writing_are_told_by_influxdb_1_12(window: str, bound: str, at: int, time: int,
                                                     expected: Bounds) -> None:
    """`BOUND` is the server's time."""
    message = WINDOW.format(duration="3h0m0s", window=window, bound=bound, at=format_bound(at), time=format_bound(time))
    assert stated_bounds(message) == expected


def test_a_future_point_says_nothing_about_an_endless_retention() -> None:
    """1.12 without a retention prints the least time that there is as the bound."""
    assert stated_bounds(WINDOW.format(duration="0s", window="15m0s", bound="Retention Policy Lower",
                              at="1677-09-21T00:12:43.145224194Z", time=format_bound(BOUND))) is None


@pytest.mark.parametrize(("text", "seconds"), [("1h0m0s", 3_600), ("168h0m0s", 604_800), ("1m30.5s", 90.5), ("0s", 0),
                                               ("87600h0m0s", 315_360_000), ("500ms", 0.5)])
def test_durations_are_read_as_go_prints_them(text: str, seconds: float) -> None:
    assert duration_of(text) == round(seconds * SECOND)


def test_influxdb_1_is_asked_for_its_policies() -> None:
    assert policies_query('a"b\\c') == 'SHOW RETENTION POLICIES ON "a\\"b\\\\c"'
    reply = {"results": [{"statement_id": 0, "series": [{
        "columns": ["name", "duration", "shardGroupDuration", "replicaN", "default"],
        "values": [["autogen", "0s", "168h0m0s", 1, False], ["hour", "1h0m0s", "1h0m0s", 1, True]]}]}]}
    assert bounds_of_policy(reply, "", BOUND) == bounds_of_policy(reply, "hour", BOUND) == Bounds(BOUND - HOUR)
    assert bounds_of_policy(reply, "autogen", BOUND) is bounds_of_policy(reply, "none", BOUND) is None
    refusals: list[object] = [{"results": [{"error": "database not found: x"}]}, {"error": "authorization failed"},
                              None, [], {}]
    for refusal in refusals:
        assert bounds_of_policy(refusal, "", BOUND) is None


def test_the_time_of_a_line_is_what_follows_its_last_space() -> None:
    assert times_of([b"m f=1 5", b"m f=1", b'm f="a 7"', b"m,t=a\\ 9 f=1 -3", b'm f="\n 1" 4'], 1_000) == [
        5_000, None, None, -3_000, 4_000]


def test_a_bound_moves_with_time_and_is_never_narrower_than_the_servers() -> None:
    known = Retention()
    assert known.bounds(100.0) is None
    known.learn(Bounds(1_000 * SECOND, 2_000 * SECOND), began=10.0, answered=12.0)
    assert known.bounds(12.0) == Bounds(1_000 * SECOND, 2_002 * SECOND)
    assert known.bounds(22.5) == Bounds(1_010 * SECOND + SECOND // 2, 2_012 * SECOND + SECOND // 2)


def test_without_a_bound_told_what_is_older_than_a_refused_line_is_refused() -> None:
    known = Retention()
    known.learn_refused([5, 3], 0.0, 1.0)
    assert known.bounds(1.0) == Bounds(6)
    known.learn_refused([4], 2.0, 2.0)
    assert known.bounds(2.0) == Bounds(6 + SECOND)
    known.learn_refused([3 * SECOND], 3.0, 3.0)
    assert known.bounds(3.0) == Bounds(3 * SECOND + 1)
    known.learn_refused([None, 9 * SECOND], 3.0, 3.0)
    assert known.bounds(3.0) == Bounds(3 * SECOND + 1)


def test_lines_outside_are_sent_now_and_then_and_a_longer_retention_is_seen() -> None:
    known = Retention()
    known.learn(Bounds(100 * SECOND), 0.0, 0.0)
    assert not known.start_recheck(RECHECK_SECONDS - 1)
    assert known.start_recheck(RECHECK_SECONDS) and not known.start_recheck(RECHECK_SECONDS + 1)
    known.learn_stored([200 * SECOND], RECHECK_SECONDS)
    assert known.bounds(RECHECK_SECONDS) is not None
    known.learn_stored([50 * SECOND, 200 * SECOND], RECHECK_SECONDS)
    assert known.bounds(RECHECK_SECONDS) is None


def test_a_bound_that_refuses_nothing_any_more_is_forgotten() -> None:
    known = Retention()
    known.learn(Bounds(100), 0.0, 0.0)
    assert known.bounds(FORGET_SECONDS) is not None
    known.start_recheck(5.0)
    assert known.bounds(FORGET_SECONDS + 5) is not None
    assert known.bounds(FORGET_SECONDS + 6) is None


def test_a_dead_letter_says_the_times() -> None:
    bounds = Bounds(BOUND, BOUND + HOUR)
    assert bounds.contains(BOUND) and bounds.contains(None)
    assert not bounds.contains(BOUND - 1) and not bounds.contains(BOUND + 2 * HOUR)
    assert "2026-11-26T09:13:20.095921517Z" in bounds.refusal(0) and "1970-01-01T00:00:00Z" in bounds.refusal(0)
    assert "2026-11-26T10:13:20.095921517Z" in bounds.refusal(BOUND + 2 * HOUR)
    assert format_bound(-2**63) == "1677-09-21T00:12:43.145224192Z" and format_bound(10**30) == str(10**30)
