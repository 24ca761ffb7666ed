"""A batch waits to be filled only while others are on their way."""

from pathlib import Path

from pipeline.testbed.harness.telemetry import produce_now, sink_of, sink_run
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import SandboxInflux


def test_an_idle_pipeline_writes_at_once_whatever_the_flush_interval(
        sandbox: SandboxIggy, influxdb: SandboxInflux, tmp_path: Path) -> None:
    produce_now(sandbox.address, 0, 2)
    config = sink_of(influxdb.url, options="workers = 1\nflush_interval_ms = 3_600_000\n")
    with sink_run(tmp_path, sandbox.address, config) as run:
        produce_now(sandbox.address, 10, 2)
        run.wait_for(lambda status: status.written == 10, "the first messages")
        assert influxdb.count() == 10
        assert run.stop() == 0
