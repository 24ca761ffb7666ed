"""Clocks that are wrong, and are set right while a pipeline runs or between two runs."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.testbed.harness.clocks import Clock
from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TARGETS, TOPIC, SandboxInflux, Sink, message, numbers, send
from tests.support.sources import Source, soon, write

HOUR = 3_600
SOURCE = TARGETS["v2"]


def a_source(folder: Path, iggy: SandboxIggy, stream: str, influxdb: SandboxInflux, clock: Clock) -> Source:
    """A source that has read what was there."""
    return Source(folder, iggy.address, influxdb.url, SOURCE, stream, environ=clock.environ)


def values(run: Source) -> set[int]:
    """What has come to Iggy."""
    return {point["fields"]["v"] for point in run.points()}


def stored_mark(run: Source) -> int:
    """The mark that is in the state file; 0 before there is one."""
    return int(json.loads(run.state_file.read_text())["marks"].get("m", 0))


def test_an_epoch_does_not_depend_on_the_clock(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                               start_sink: Callable[..., Sink], tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    clock.set(HOUR)
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(1_000)], 2)
    sink = start_sink(sandbox.address, stream, influxdb, environ=clock.environ)
    epoch = sink.settles(1_000).epoch
    clock.set(0)
    sink.kill("coordinator")
    assert sink.wait_for(lambda status: status.epoch != epoch).epoch > epoch
    send(sandbox.address, stream, [message(n) for n in range(1_000, 2_000)], 2)
    sink.settles(2_000)
    assert numbers(influxdb.points()) == list(range(2_000))
    assert sink.stop() == 0


def test_a_replaced_coordinator_goes_on_after_the_clock_was_set_back(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    clock.set(HOUR)
    run = a_source(tmp_path / "p", sandbox, stream, influxdb, clock)
    try:
        write(influxdb, [f"m v=1i {time.time_ns()}"])
        wait_until(lambda: values(run) == {1} and stored_mark(run) > time.time_ns(), "the first point")
        clock.set(0)
        run.kill("source-coordinator")
        write(influxdb, [f"m v=2i {time.time_ns()}"])
        wait_until(lambda: values(run) == {1, 2}, "the second point")
        run.wait_for_log("in the future")
        assert run.stop() == 0
    finally:
        run.close()


def test_points_that_come_while_the_clock_is_ahead_are_not_missed(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    run = a_source(tmp_path / "p", sandbox, stream, influxdb, clock)
    try:
        write(influxdb, [f"m v=1i {time.time_ns()}"])
        wait_until(lambda: values(run) == {1}, "the first point")
        clock.set(HOUR)
        ahead = (time.time_ns() + 1_800 * 10**9)
        run.wait_for(lambda status: any(lane.watermark > ahead for lane in status.measurements))
        run.wait_for_log("the clock was set forward by 3600 s")
        write(influxdb, [f"m v=2i {time.time_ns()}"])
        clock.set(0)
        wait_until(lambda: values(run) == {1, 2}, "what came meanwhile")
        write(influxdb, [f"m v=3i {soon()}"])
        wait_until(lambda: values(run) == {1, 2, 3}, "what came after")
        run.wait_for_log("the clock was set back by 3600 s")
        assert "fault" not in run.log()
        assert run.stop() == 0
    finally:
        run.close()


def test_a_mark_in_the_future_is_said_and_reading_goes_on_before_now(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    clock.set(HOUR)
    run = a_source(tmp_path / "p", sandbox, stream, influxdb, clock)
    try:
        write(influxdb, [f"m v=1i {time.time_ns()}"])
        wait_until(lambda: values(run) == {1} and stored_mark(run) > time.time_ns(), "the first point")
        write(influxdb, [f"m v=2i {time.time_ns()}"])
        assert run.stop() == 0
        clock.set(0)
        run.start()
        wait_until(lambda: values(run) == {1, 2}, "what came while the clock was ahead")
        run.wait_for_log("the watermark of m is")
        assert run.stop() == 0
        before = run.log().count("in the future")
        run.start()
        run.wait_for(lambda status: status.caught_up)
        assert run.stop() == 0
        assert run.log().count("in the future") == before
    finally:
        run.close()
