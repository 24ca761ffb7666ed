"""Late points are counted whatever windows were read in, and never those that were read."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.source_schema import OutputConfig, SourceConfig
from pipeline.points.times import SECOND
from pipeline.points.windows import TimeWindow
from pipeline.source_coordinator.late import ASK_AGAIN, LEVELS, MOST_TRIES, LateWatch
from pipeline.source_coordinator.late_warning import late_warning

AFTER = 10 * SECOND
#: (width of a window in seconds, its rows, rows that come later, and how many seconds later).
WINDOWS = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5), st.integers(0, 3), st.integers(0, 20_000)),
                   min_size=1, max_size=20)


def in_window(points: list[tuple[int, int]], window: TimeWindow, now: int) -> int:
    """How many points (time, when it was written) a window has by now."""
    return sum(window.start <= at < window.end and written <= now for at, written in points)


@given(WINDOWS)
def test_what_comes_before_the_last_count_is_counted_once(windows: list[tuple[int, int, int, int]]) -> None:
    watch = LateWatch(AFTER, 0)
    points: list[tuple[int, int]] = []
    start, parts = 0, []
    for seconds, rows, late, delay in windows:
        window = TimeWindow(start, start + seconds * SECOND)
        points += [(window.start, window.end)] * rows
        # It is written after the window was read.
        points += [(window.start, window.end + 1 + delay * SECOND)] * late
        parts.append((window, rows))
        start = window.end
    # More windows without points, so that all of the first are closed.
    for _ in range(3):
        window = TimeWindow(start, start + AFTER * LEVELS[-1])
        parts.append((window, 0))
        start = window.end
    at, found = 0, 0
    for window, rows in parts:
        watch.add(window, rows)
        assert sum(map(len, watch._waiting)) < 1_000
        at = max(at, window.end)
        found += counted(watch, points, at)
    for number in range(5):
        found += counted(watch, points, start + 2 * AFTER * LEVELS[-1] + number * 2 * ASK_AGAIN)
    certain = sum(late for _, _, late, delay in windows if delay * SECOND < AFTER * LEVELS[-1])
    assert certain <= found == watch.late <= sum(late for _, _, late, _ in windows)


def counted(watch: LateWatch, points: list[tuple[int, int]], now: int) -> int:
    """Answers what is due by now."""
    found = 0
    while (due := watch.due(now)) is not None:
        found += watch.counted(due[0], in_window(points, due[0], now))
    return found


@given(st.permutations(range(6)))
def test_windows_that_are_confirmed_in_any_order_are_the_same(order: list[int]) -> None:
    watch = LateWatch(AFTER, 0)
    watch.add(TimeWindow(0, 1), 0)
    for number in order:
        watch.add(TimeWindow(1 + number * 2 * SECOND, 1 + (number + 1) * 2 * SECOND), 1)
    assert watch.due(1 + 12 * SECOND + AFTER) == (TimeWindow(0, 1 + 10 * SECOND), 5)


@given(st.booleans(), st.integers(0, 9))
def test_a_page_counts_when_it_was_read_and_confirmed_last(read_first: bool, rows: int) -> None:
    watch = LateWatch(AFTER, 0)
    watch.page_read(0, 0, TimeWindow(0, AFTER), 99)  # the process died
    for what in (("read", "confirmed") if read_first else ("confirmed", "read")):
        if what == "read":
            watch.page_read(0, 1, TimeWindow(0, AFTER), rows)
        else:
            watch.page_confirmed(0, 1, rows + 1)
    assert watch.due(2 * AFTER) == (TimeWindow(0, AFTER), rows)
    cut = LateWatch(AFTER, 0)
    cut.page_read(0, 0, TimeWindow(0, AFTER), None)
    cut.page_confirmed(0, 0, rows)
    assert cut.due(2 * AFTER) == (TimeWindow(0, AFTER), rows)


def test_history_and_what_cannot_be_counted_is_not_asked_for() -> None:
    watch = LateWatch(AFTER, 1_000)
    watch.add(TimeWindow(0, 1_001), 7)
    assert watch.due(100 * AFTER) is None
    watch.add(TimeWindow(1_001, 1_001 + AFTER), 7)
    for number in range(MOST_TRIES):
        assert watch.due(100 * AFTER + number * ASK_AGAIN) is not None
        assert watch.due(100 * AFTER + number * ASK_AGAIN + 1) is None
    assert watch.due(200 * AFTER) is None
    watch.add(TimeWindow(1_001 + AFTER, 1_001 + 2 * AFTER), 7)
    watch.stop()
    assert watch.due(100 * AFTER) is None
    never = LateWatch(0, 0)
    never.add(TimeWindow(0, AFTER), 1)
    assert never.due(10 * AFTER) is None


def test_fewer_than_were_read_are_not_late_and_a_lower_bound_hides_nothing() -> None:
    watch = LateWatch(AFTER, 0)
    watch.add(TimeWindow(0, 12 * AFTER), 10)
    window, rows = watch.due(20 * AFTER) or (None, 0)
    assert window is not None and rows == 10
    assert watch.counted(window, 4) == 0  # points of different fields
    window, rows = watch.due(30 * AFTER) or (None, 0)
    assert window is not None and rows == 10
    assert watch.counted(window, 12) == watch.late == 2
    assert watch.counted(window, 99) == 0  # it was not asked for


def test_the_warning_says_how_they_come_to_iggy() -> None:
    config = SourceConfig(name="weather", buffer_duration_ms=5_000, output=OutputConfig(stream="s"))
    text = late_warning(config, {"rain": (3, TimeWindow(0, SECOND)), "wind": (1, TimeWindow(SECOND, 2 * SECOND))},
                        ["/etc/a b.toml"])
    assert "4 points of 2 measurements (3 of them of rain)" in text
    assert "pipeline start -c '/etc/a b.toml' --from 1970-01-01T00:00:00.000000000Z --to 1970-01-01T00:00:02" in text
    assert "raise buffer_duration_ms = 5000, or set overlap_ms" in text


def test_nothing_is_kept_of_pages_that_do_not_count() -> None:
    watch = LateWatch(AFTER, 1_000)
    for seq in range(5):
        watch.page_read(seq, 0, TimeWindow(seq, seq + 1), 3)
        watch.page_confirmed(seq, 0, 3)
    assert not watch._pages and not watch._ahead
