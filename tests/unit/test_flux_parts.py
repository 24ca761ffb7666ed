"""The parts of a query in Flux: none reaches over the beginning of a shard."""

from datetime import UTC, datetime

import pytest

from pipeline.points.times import MIN_TIME, SECOND, parse_time
from pipeline.points.windows import TimeWindow
from stages.languages.flux import MAX_PARTS, PART, FluxDialect, parts_of, start_of_part

DAY = 86_400 * SECOND


@pytest.mark.parametrize("begin", ["1969-12-28T12:00:00Z", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00.000000001Z"])
def test_a_window_is_divided_at_each_midnight(begin: str) -> None:
    start = parse_time(begin)
    for width in (1, DAY - 1, DAY, DAY + 1, 3 * DAY):
        parts = parts_of(TimeWindow(start, start + width), PART)
        assert [parts[0].start, parts[-1].end] == [start, start + width]
        assert all(before.end == after.start and after.start % DAY == 0
                   for before, after in zip(parts, parts[1:], strict=False))
        assert all(0 < part.width <= DAY for part in parts)


def test_shards_of_days_and_weeks_begin_with_a_part() -> None:
    # InfluxDB counts from the year 1, which began on a Monday.
    monday = parse_time("2026-11-23T00:00:00Z")
    assert datetime.fromtimestamp(monday / SECOND, UTC).weekday() == 0
    assert start_of_part(monday + 3 * DAY, 7 * DAY) == monday == start_of_part(monday, DAY)


def test_a_query_reaches_so_many_parts_and_a_wider_window_is_one_that_is_not_relied_on() -> None:
    dialect = FluxDialect("b")
    wide = TimeWindow(MIN_TIME, MIN_TIME + 1_000 * DAY)
    near = dialect.reachable(wide)
    assert near.start == wide.start and near.end % DAY == 0 and len(parts_of(near, PART)) == MAX_PARTS
    assert parts_of(wide, PART) == [wide]
    assert dialect.reachable(near) == near and dialect.before_first(5 * DAY + 7) == 5 * DAY
    assert FluxDialect("b", custom=True).reachable(wide) == wide
    assert dialect.page("m", (), near, 0).body.count(b"yield") == MAX_PARTS + 1
