"""`pipeline offsets`: what it shows, sets and resets, and when it refuses."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.support.iggy_servers import RunningIggy, SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, send

Start = Callable[..., Sink]


def offsets(sink: Sink, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `pipeline offsets` on the configuration of a sink."""
    return subprocess.run([sys.executable, "-m", "pipeline", "offsets", arguments[0], "-c", str(sink.config),
                           *arguments[1:]], capture_output=True, text=True, timeout=60)


def rows(output: str) -> list[list[str]]:
    """partition, stored, end and lag of each line of the table."""
    return [[cell.strip() for cell in line.strip("│ ").split("│")][2:] for line in output.splitlines()
            if line.startswith("│")]


def stopped(iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, **options: str) -> Sink:
    """A pipeline that has written messages 0 to 999 of two partitions, and has stopped."""
    iggy.create_topic(stream, TOPIC, 2)
    send(iggy.address, stream, [message(n) for n in range(1_000)], 2)
    sink = start_sink(iggy.address, stream, influxdb, **options)
    sink.settles(1_000)
    assert sink.stop() == 0
    return sink


def test_show_tells_stored_end_and_lag(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                       start_sink: Start) -> None:
    sink = stopped(sandbox, stream, influxdb, start_sink)
    send(sandbox.address, stream, [message(n) for n in range(1_000, 1_100)], 1)
    sandbox.call(sandbox.broker.state.add_partitions, stream, TOPIC, 1)
    shown = offsets(sink, "show")
    assert shown.returncode == 0, shown.stderr
    assert rows(shown.stdout) == [["0", "499", "599", "100"], ["1", "499", "499", "0"], ["2", "-", "-", "0"]]


def test_set_makes_reading_begin_after_an_offset(iggy: RunningIggy, stream: str, influxdb: SandboxInflux,
                                                 start_sink: Start) -> None:
    sink = stopped(iggy, stream, influxdb, start_sink)
    done = offsets(sink, "set", "--topic", f"{stream}/{TOPIC}", "--partition", "1", "--offset", "399")
    assert done.returncode == 0, done.stderr
    assert "reading begins at offset 400" in done.stdout
    sink.start()
    assert sink.wait_for(lambda status: status.read == 100 and status.in_flight == 0)


@pytest.mark.parametrize(("to", "read"), [("earliest", 1_000), ("latest", 0), ("450", 100)])
def test_reset_makes_all_partitions_begin_there(iggy: RunningIggy, stream: str, influxdb: SandboxInflux,
                                                start_sink: Start, to: str, read: int) -> None:
    sink = stopped(iggy, stream, influxdb, start_sink, topic='start_from = "latest"' if to == "never" else "")
    assert offsets(sink, "reset", "--to", to).returncode == 0
    sink.arguments = ["--until-caught-up"]
    before = len(sink.log())
    sink.start()
    assert sink.ends() == 0
    assert f"stopped: {read} messages read" in sink.log()[before:]


def test_reset_to_a_time_begins_with_the_first_message_since(iggy: RunningIggy, stream: str,
                                                             influxdb: SandboxInflux, start_sink: Start) -> None:
    sink = stopped(iggy, stream, influxdb, start_sink)
    moment = datetime.now(UTC).isoformat()
    send(iggy.address, stream, [message(n) for n in range(1_000, 1_300)], 1)
    assert offsets(sink, "reset", "--to", "latest").returncode == 0
    done = offsets(sink, "reset", "--to", moment)
    assert done.returncode == 0, done.stderr
    sink.start()
    sink.settles(1_300)
    assert numbers(influxdb.points()) == list(range(1_300))


def test_a_running_pipeline_keeps_its_offsets_unless_forced(iggy: RunningIggy, stream: str,
                                                            influxdb: SandboxInflux, start_sink: Start) -> None:
    sink = stopped(iggy, stream, influxdb, start_sink)
    sink.start()
    sink.wait_for(lambda status: status.ready)
    refused = offsets(sink, "reset", "--to", "earliest")
    assert refused.returncode == 1
    assert f"another pipeline (process {sink.process.pid}) reads {stream}/{TOPIC}" in refused.stderr
    assert "--force" in refused.stderr
    assert offsets(sink, "reset", "--to", "earliest", "--force").returncode == 0
    assert rows(offsets(sink, "show").stdout) == [["0", "0", "499", "499"], ["1", "0", "499", "499"]]


def test_mistakes_are_said_in_one_line(iggy: RunningIggy, stream: str, influxdb: SandboxInflux,
                                       start_sink: Start) -> None:
    sink = stopped(iggy, stream, influxdb, start_sink)
    topic = f"{stream}/{TOPIC}"
    wrong = offsets(sink, "set", "--topic", "no/such", "--partition", "0", "--offset", "1")
    assert wrong.returncode == 1 and f"which has {topic}" in wrong.stderr
    wrong = offsets(sink, "set", "--topic", topic, "--partition", "0", "--offset", "5000")
    assert wrong.returncode == 1 and "ends at offset 499; give that or less" in wrong.stderr
    assert offsets(sink, "reset", "--to", "noon").returncode == 2
