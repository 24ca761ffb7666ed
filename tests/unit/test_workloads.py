"""The workloads of the bench: both sides write the same points, and the figures are what they are called."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from pipeline.errors import PipelineError
from pipeline.testbed.bench import workloads as bench
from pipeline.testbed.workloads.catalogue import NAMES, workload


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_write_the_same_points(name: str) -> None:
    table = bench.measure([name], batches=1, messages=100)
    assert [row.name for row in table.rows] == [name]
    assert table.geomean == table.worst == table.rows[0].ratio > 0


def test_the_same_numbers_give_the_same_messages(tmp_path: Path) -> None:
    work = workload("zigbee2mqtt", tmp_path)
    assert work.payloads(7, 3) == work.payloads(7, 3) != work.payloads(8, 3)


def test_lines_that_differ_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = workload("flat", tmp_path)
    wrong = replace(work, mapping=replace(work.mapping, exclude_fields=("ok",)))
    monkeypatch.setattr(bench, "workload", lambda name, folder: wrong)
    with pytest.raises(PipelineError, match="different points"):
        bench.measure(["flat"], batches=1, messages=10)


def test_a_table_says_whether_it_is_fast_enough() -> None:
    row = bench.Row("a", "b", 100, 1.0, 2.0, 2.0)
    slow = bench.Table([row], bench.COMMITTED_GEOMEAN * 0.5, bench.COMMITTED_WORST)
    fast = bench.Table([row], bench.COMMITTED_GEOMEAN, bench.COMMITTED_WORST)
    assert bench.is_fast_enough(fast) and "good" in bench.verdict(fast)
    assert not bench.is_fast_enough(slow) and "TOO SLOW" in bench.verdict(slow)
