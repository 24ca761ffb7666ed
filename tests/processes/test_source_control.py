"""An operator looks at what a source sends, pauses, resumes and drains it, over the local socket."""

import json
import subprocess
import sys
from pathlib import Path

from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import RunningIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import SandboxInflux
from tests.support.sources import Source, write


def run(source: Source, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command on the configuration of a source."""
    return subprocess.run([sys.executable, "-m", "pipeline", *command.split(), "-c", str(source.config), *arguments],
                          capture_output=True, text=True, timeout=120, env=source.environ)


def test_a_source_is_tapped_paused_resumed_and_drained(tmp_path: Path, iggy: RunningIggy, stream: str) -> None:
    with running_influxdb(flavour="v1") as server:
        influxdb = SandboxInflux(server.url, "v1")
        write(influxdb, ["m,t=x f=1 1"])
        source = Source(tmp_path, iggy.address, influxdb.url, 'database = "sandbox"\nversion = "v1"', stream,
                        options='log_format = "json"', environ={"STATE_DIRECTORY": str(tmp_path)})
        try:
            source.wait_for(lambda status: status.points == 1 and status.caught_up)
            command = [sys.executable, "-m", "pipeline", "tap", "-c", str(source.config), "--json", "--count", "1",
                       "--source", "source"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=source.environ) as tap:
                count = 1
                while tap.poll() is None:  # it has to be listening, when a page is sent
                    count += 1
                    write(influxdb, [f"m,t=x f={count}"])
                    source.wait_for(lambda status, count=count: status.points == count)  # type: ignore[misc]
                assert tap.stdout is not None
                shown = json.loads(tap.stdout.read())
            assert [shown[key] for key in ("kind", "measurement", "topic", "partition")] == ["message", "m", "out", 0]
            assert json.loads(shown["text"])["tags"] == {"t": "x"}

            wrong = run(source, "pause", "--source", "nobody")
            assert wrong.returncode == 2 and "there is source" in wrong.stderr
            paused = run(source, "pause", "--source", "source", "--keep")
            assert (paused.returncode, paused.stdout) == (0, "paused: source source\n"), paused.stderr
            source.kill("source-coordinator")
            write(influxdb, ["m,t=x f=0", "other f=0"])
            source.wait_for(lambda status: status.ready and status.points == 0)  # the new one is paused, too
            drained = run(source, "drain")
            assert drained.returncode == 0 and "drained" in drained.stdout, drained.stderr
            assert len(source.points()) == count
            resumed = run(source, "resume")
            assert (resumed.returncode, resumed.stdout) == (0, "nothing is paused\n"), resumed.stderr
            wait_until(lambda: len(source.points()) == count + 2, "the points that were written meanwhile")
            assert source.stop() == 0
            records = [json.loads(line) for line in source.log().splitlines()]
            assert {"query", "source-coordinator"} <= {one["process"] for one in records if "source" in one}
        finally:
            source.close()
