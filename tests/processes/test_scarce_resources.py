"""Machines that are short of something: a sentence and an orderly end, or a wait."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TARGETS, TOPIC, SandboxInflux, Sink, message, numbers, send

Start = Callable[..., Sink]


@pytest.mark.parametrize(("which", "limit", "words"), [
    (resource.RLIMIT_NOFILE, 40, ("ulimit -n", "40 files")),
    (resource.RLIMIT_AS, 500_000_000, ("ulimit -v", "500,000,000 bytes"))])
def test_too_little_of_something_is_said_at_the_start(tmp_path: Path, influxdb: SandboxInflux, which: int, limit: int,
                                                      words: tuple[str, ...]) -> None:
    config = tmp_path / "pipeline.toml"
    config.write_text(f'[[topics]]\nstream = "s"\ntopic = "t"\n[influxdb]\nurl = "{influxdb.url}"\n{TARGETS["v2"]}')
    run = subprocess.run([sys.executable, "-m", "pipeline", "start", "-c", str(config)], capture_output=True, text=True,
                         timeout=60, preexec_fn=lambda: resource.setrlimit(which, (limit, limit)))
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert all(word in line for word in words)


def test_few_files_are_enough_where_more_may_be_had(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                    start_sink: Start) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n) for n in range(100)])
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        sink = start_sink(sandbox.address, stream, influxdb)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    sink.settles(100)
    assert sink.stop() == 0


def test_a_removed_runtime_folder_ends_the_pipeline_in_order(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n) for n in range(1_000)])
    sink = start_sink(sandbox.address, stream, influxdb)
    sink.settles(1_000)
    shutil.rmtree(sink.folder / "run")
    assert sink.ends() == 1
    assert "was removed while the pipeline ran" in sink.log().splitlines()[-1]
    assert "Traceback" not in sink.log()
    send(sandbox.address, stream, [message(n) for n in range(1_000, 2_000)])
    sink.start()
    sink.settles(2_000)
    assert numbers(influxdb.points()) == list(range(2_000))
    assert sink.stop() == 0


def test_types_that_cannot_be_written_down_have_encoders_wait_and_not_fail(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    sink = start_sink(sandbox.address, stream, influxdb)
    status = sink.wait_for(lambda status: status.ready)
    # As a full disk: no file of the coordinator may grow, its log neither.
    resource.prlimit(status.pids["coordinator"], resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    send(sandbox.address, stream, [message(n) for n in range(100)])
    sink.wait_for(lambda status: "cannot be written to" in status.retrying.get("coordinator", ""))
    assert influxdb.count() == 0
    resource.prlimit(status.pids["coordinator"], resource.RLIMIT_FSIZE,
                     (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    sink.settles(100)
    assert numbers(influxdb.points()) == list(range(100))
    assert "died" not in sink.log()
    sink.wait_for_log("field types are written again")
    assert sink.stop() == 0
