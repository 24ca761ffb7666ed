"""The workloads of the bench: both sides write the same points, and the figures are what they are called."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from pipeline.commands.load import mapping_of
from pipeline.config.presets import preset_names
from pipeline.config.schema import MappingConfig
from pipeline.errors import PipelineError
from pipeline.testbed.bench import presets
from pipeline.testbed.bench import workloads as bench
from pipeline.testbed.load.sender import messages_of
from pipeline.testbed.workloads.catalogue import CHANGED, NAMES, workload
from pipeline.testbed.workloads.mapping_text import mapping_text


@pytest.mark.parametrize("name", [*NAMES, *CHANGED])
def test_both_sides_write_the_same_points(name: str) -> None:
    table = bench.measure([name], batches=1, messages=100)
    assert [row.name for row in table.rows] == [name]
    assert table.geomean == table.worst == table.rows[0].ratio > 0
    assert table.zlib_geomean == table.zlib_worst == table.rows[0].zlib_ratio > 0


def test_the_same_numbers_give_the_same_messages(tmp_path: Path) -> None:
    work = workload("zigbee2mqtt", tmp_path)
    assert work.payloads(7, 3) == work.payloads(7, 3) != work.payloads(8, 3)


def test_lines_that_differ_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = workload("flat", tmp_path)
    wrong = replace(work, mapping=replace(work.mapping, exclude_fields=("ok",)))
    monkeypatch.setattr(bench, "workload", lambda name, folder: wrong)
    with pytest.raises(PipelineError, match="different points"):
        bench.measure(["flat"], batches=1, messages=10)


@pytest.mark.parametrize("name", [*NAMES, *CHANGED])
def test_the_mapping_of_each_workload_can_be_put_into_a_configuration(name: str, tmp_path: Path) -> None:
    mapping = workload(name, tmp_path).mapping
    lines = mapping_text(mapping)
    assert msgspec.convert(tomllib.loads(lines), MappingConfig) == mapping
    assert "timestamp_zone" not in lines


def test_a_load_sends_the_messages_of_a_workload(tmp_path: Path) -> None:
    make = messages_of("rules")
    assert make(5, 1_700_000_000_000_000) == workload("rules", tmp_path).message(5, 1_700_000_000_000_000)


def test_a_workload_that_is_none_is_said_with_those_that_are() -> None:
    with pytest.raises(PipelineError, match="nothing: there is no such workload; give one of flat, "):
        mapping_of("nothing")


def test_each_preset_is_measured_with_its_own_message() -> None:
    costs = list(presets.measure(messages=5))
    assert [cost.preset for cost in costs] == preset_names()
    assert all(cost.us > 0 and cost.points >= 1 for cost in costs)
    assert presets.text(costs).count("\n") == len(costs)


def test_a_table_says_whether_it_is_fast_enough() -> None:
    row = bench.Row("a", "b", 100, 1.0, 2.0, 2.0, 2.5)
    slow = bench.Table([row], bench.COMMITTED_GEOMEAN * 0.5, bench.COMMITTED_WORST, 2.5, 2.5)
    fast = bench.Table([row], bench.COMMITTED_GEOMEAN, bench.COMMITTED_WORST, 2.5, 2.5)
    assert bench.is_fast_enough(fast) and "good" in bench.verdict(fast)
    assert not bench.is_fast_enough(slow) and "TOO SLOW" in bench.verdict(slow)
