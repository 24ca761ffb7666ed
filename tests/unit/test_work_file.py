"""What a process had in hand is known after its death, however many ranges that were."""

import logging
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.wire.sink import Partition, Range
from pipeline.work_file import MAX_RANGES, WorkFile, beats_of, work_of, work_path

LOGGER = logging.getLogger("test")
NUMBERS = st.integers(0, 2**62)
RANGES = st.builds(Range, NUMBERS, st.builds(Partition, st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1)), NUMBERS,
                   NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 15))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(works=st.lists(st.lists(RANGES, max_size=12), min_size=1, max_size=5))
def test_the_last_work_is_found_and_none_after_its_end(tmp_path: Path, works: list[list[Range]]) -> None:
    file = WorkFile(str(tmp_path), "write-0", LOGGER)
    assert work_of(str(tmp_path), "write-0") == []
    for ranges in works:
        file.begin(ranges)
        file.beat()
        assert work_of(str(tmp_path), "write-0") == ranges
        file.end()
        assert work_of(str(tmp_path), "write-0") == []
        file.begin(ranges)  # the same ones again, which are not written again
        assert work_of(str(tmp_path), "write-0") == ranges
    assert beats_of(str(tmp_path), "write-0") >= len(works)


def test_of_too_many_ranges_the_first_are_recorded(tmp_path: Path) -> None:
    ranges = [Range(1, Partition(0, number), 0, 0, 1, 1) for number in range(MAX_RANGES + 7)]
    WorkFile(str(tmp_path), "write-0", LOGGER).begin(ranges)
    assert work_of(str(tmp_path), "write-0") == ranges[:MAX_RANGES]


def test_a_file_that_is_missing_or_cut_off_names_no_work(tmp_path: Path) -> None:
    assert work_of(str(tmp_path), "encode-0") == []
    WorkFile(str(tmp_path), "encode-0", LOGGER).begin([Range(1, Partition(0, 1), 0, 0, 1, 1)] * 3)
    for size in (0, 3, 127, 130):
        work_path(str(tmp_path), "encode-0").write_bytes(work_path(str(tmp_path), "encode-0").read_bytes()[:size])
        assert work_of(str(tmp_path), "encode-0") == []
