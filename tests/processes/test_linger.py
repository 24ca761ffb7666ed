"""A batch waits to be filled only while others are on their way."""

from pathlib import Path

from pipeline.testbed.harness.processes import PipelineRun
from pipeline.testbed.harness.telemetry import produce_now
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import SandboxInflux


def test_an_idle_pipeline_writes_at_once_whatever_the_flush_interval(
        sandbox: SandboxIggy, influxdb: SandboxInflux, tmp_path: Path) -> None:
    produce_now(sandbox.address, 0, 2)
    run = PipelineRun(tmp_path, sandbox.address, influxdb.url, 1, "flush_interval_ms = 3_600_000\n")
    try:
        produce_now(sandbox.address, 10, 2)
        run.wait_for(lambda status: status.written == 10, 60, "the first messages")
        assert influxdb.count() == 10
        assert run.stop() == 0
    finally:
        run.process.kill()
        run.process.wait()
