"""Windows: whatever the points, each is read exactly once, no page is larger than it may be, and equal times stay
together."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.points.fingerprints import Fingerprint, Fingerprints, pack, unpack, unpack_known
from pipeline.points.shards import parse_duration, shard_start
from pipeline.points.times import MAX_TIME, MIN_TIME, TimeReader, format_time, parse_time
from pipeline.points.windows import TimeWindow, cut_before
from pipeline.source_coordinator.stride import FIRST_WIDTH, WIDER_AFTER, Stride

#: Times that repeat, and lie in bunches far apart.
TIMES = st.lists(st.one_of(st.integers(0, 30), st.integers(10**6, 10**6 + 20), st.integers(MIN_TIME, MAX_TIME - 1)),
                 max_size=80)


def read_ordered(times: list[int], window: TimeWindow, page_size: int,
                 shuffle: random.Random) -> tuple[list[int], TimeWindow]:
    """A page as a server answers `ORDER BY time LIMIT page_size + 1`; equal times in any order."""
    found = [(time, shuffle.random()) for time in times if window.start <= time < window.end]
    page = [time for time, _ in sorted(found)[:page_size + 1]]
    if len(page) <= page_size:
        return page, window
    try:
        end = cut_before(window, page[-1])
    except ValueError:
        window = TimeWindow(window.start, window.start + 1)
        return [time for time in times if time == window.start], window
    return [time for time in page if time < end], TimeWindow(window.start, end)


@given(TIMES, st.integers(1, 10), st.randoms(use_true_random=False))
def test_pages_in_the_order_of_time_hold_every_point_once(times: list[int], page_size: int,
                                                          shuffle: random.Random) -> None:
    stride, read, start, pages = Stride(ordered=True), [], MIN_TIME, 0
    while (window := stride.next(start, MAX_TIME)) is not None:
        page, covered = read_ordered(times, window, page_size, shuffle)
        assert len(page) <= page_size or covered.width == 1
        assert (covered.start, covered.end > covered.start) == (start, True)
        stride.read(covered, len(page) if covered == window else page_size, page_size, min(page, default=start))
        read += page
        start = covered.end
        pages += 1
        assert pages < 2_000
    assert sorted(read) == sorted(times)


@given(TIMES, st.integers(1, 10), st.sampled_from([1, 7, 60_000_000_000]), st.integers(0, 100))
def test_windows_that_are_too_full_are_narrowed_until_they_fit(
        times: list[int], page_size: int, align: int, seen: int) -> None:
    start = MIN_TIME - MIN_TIME % align
    times = [time for time in times if time >= start]
    limit = max(times, default=0) + 2 * align
    stride, read, asked, times_in_a_row = Stride(ordered=False, align=align), [], 0, 1
    window = stride.next(start, limit)
    while window is not None:
        page = [time for time in times if window.start <= time < window.end]
        asked += 1
        assert asked < 20_000
        smaller = stride.narrower(window, page[seen % len(page)], times_in_a_row) if len(page) > page_size else None
        if smaller is not None:
            assert smaller.start == window.start and smaller.end < window.end
            window = smaller
            times_in_a_row += 1
            continue
        times_in_a_row = 1
        assert len(page) <= page_size or window.width <= align
        assert window.end % align == 0
        stride.read(window, len(page), page_size, min(page, default=window.start))
        read += page
        window = stride.next(window.end, limit)
    assert sorted(read) == sorted(times)


def test_a_long_silence_is_crossed_in_few_windows() -> None:
    stride, start, windows = Stride(ordered=False), 0, 0
    while (window := stride.next(start, 10**18)) is not None:
        stride.read(window, 0, 1_000, window.start)
        start, windows = window.end, windows + 1
    assert windows < 25


def test_where_the_first_point_is_searched_for_the_silence_before_it_is_one_window() -> None:
    stride = Stride(ordered=False, searches=True)
    window = stride.next(MIN_TIME, 10**18)
    assert window == TimeWindow(MIN_TIME, 10**18)
    stride.read(TimeWindow(MIN_TIME, 10**17), 0, 1_000, MIN_TIME)  # the page ended before the first point
    assert stride.next(10**17, 10**18) == TimeWindow(10**17, 10**17 + FIRST_WIDTH)
    # With points at once, and too many of them, it does not begin with half of all time.
    stride = Stride(ordered=False, searches=True)
    assert stride.narrower(TimeWindow(0, 10**18), 5, 1) == TimeWindow(0, FIRST_WIDTH)
    assert stride.narrower(TimeWindow(0, FIRST_WIDTH), 5, 1) == TimeWindow(0, FIRST_WIDTH // 2)


@given(TIMES, st.integers(1, 10), st.sampled_from([7, 10**6, 604_800 * 10**9]), st.randoms(use_true_random=False))
def test_windows_by_shard_hold_every_point_once_and_few_windows_span_shards(
        times: list[int], page_size: int, shard: int, shuffle: random.Random) -> None:
    stride, read, start, pages, before = Stride(ordered=True, shard=shard), [], MIN_TIME, 0, 0
    while (window := stride.next(start, MAX_TIME)) is not None:
        page, covered = read_ordered(times, window, page_size, shuffle)
        # Only after a window without points.
        assert not before or window.width <= shard and shard_start(window.end - 1, shard) <= window.start
        stride.read(covered, len(page) if covered == window else page_size, page_size, min(page, default=start))
        read += page
        start, before = covered.end, len(page)
        pages += 1
        assert pages < 2_000
    assert sorted(read) == sorted(times)


@pytest.mark.parametrize(("text", "seconds"), [
    ("168h0m0s", 604_800), ("1h30m0s", 5_400), ("0s", 0), ("INF", 0), ("", 0)])
def test_durations_as_the_server_writes_them(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds * 10**9


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20), st.integers(0, 3)), max_size=60), st.integers(1, 10),
       st.integers(0, 50))
def test_fingerprints_keep_the_newest_with_their_last_content(
        prints: list[tuple[int, int, int]], limit: int, before: int) -> None:
    # A point's time belongs to it.
    points = [Fingerprint(time=point * 2, point=point, content=content) for _, point, content in prints]
    kept = Fingerprints(limit)
    for one in points:
        kept.add([one])
        assert len(kept) <= limit
    kept.prune(before)
    latest = {one.point: one for one in points}
    for one in kept.prints():
        assert latest[one.point] == one and one.time >= before
    assert unpack(pack(kept.prints())) == kept.prints()
    assert unpack_known(kept.between(10, 20)) == {
        one.point: one.content for one in kept.prints() if 10 <= one.time < 20}


@given(st.integers(MIN_TIME, MAX_TIME))
def test_times_are_kept_to_the_nanosecond(time: int) -> None:
    assert parse_time(format_time(time)) == time
    reader = TimeReader()
    for _ in range(2):
        assert reader.read(format_time(time)) == time
        assert reader.read(format_time(time).rstrip("Z")) == time
        assert reader.read(format_time(time - time % 10**9)[:19] + "Z") == time - time % 10**9


def test_a_reader_of_times_minds_zones_and_refuses_what_is_none() -> None:
    reader = TimeReader()
    assert reader.read("2026-01-31T12:00:00.5+02:00") == parse_time("2026-01-31T10:00:00.5Z")
    assert reader.read("2026-01-31T12:00:00.5Z") == parse_time("2026-01-31T12:00:00.5Z")
    assert reader.read("2026-01-31T12:00:00-01:30") == parse_time("2026-01-31T13:30:00Z")
    for text in ("", "2026-01-31", "2026-01-31T12:00:00x", "2026-01-31T12:00:00.Z1"):
        try:
            reader.read(text)
        except ValueError:
            continue
        raise AssertionError(text)


@given(st.booleans(), st.integers(2, 10**18), st.integers(0, 200))
def test_windows_stay_as_narrow_as_one_that_was_too_slow(ordered: bool, width: int, pages: int) -> None:
    stride = Stride(ordered)
    stride.narrower(TimeWindow(0, width), 0, 1, slow=True)
    position = 0
    for _ in range(pages):
        window = stride.next(position, MAX_TIME)
        if window is None:
            break
        assert window.width <= max(1, width // 2) * 2 ** (pages // WIDER_AFTER)
        stride.read(window, 0, 100, window.start)
        position = window.end
    assert stride.narrower(TimeWindow(0, 1), 0, 1, slow=True) is None
