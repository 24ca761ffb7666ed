"""Several pipelines in one consumer group: they share a topic, one dies, one comes, nothing is lost."""

import subprocess
import sys
from collections.abc import Callable, Iterable

from iggy_servers import SandboxIggy
from sinks import TOPIC, SandboxInflux, Sink, message, numbers, send

from pipeline.rig import wait_until

Start = Callable[..., Sink]
GROUP = 'consumer_group = "writers"'


def committed(sandbox: SandboxIggy, stream: str) -> int:
    """How many messages the group has committed, by its stored offsets."""
    def total() -> int:
        return sum(offset + 1 for group in sandbox.broker.topic(stream, TOPIC).groups.values()
                   for offset in group.offsets.values())

    return int(sandbox.call(total))


def shares(sandbox: SandboxIggy, stream: str) -> list[list[int]]:
    """The partitions of each member."""
    def members() -> list[list[int]]:
        group = sandbox.broker.topic(stream, TOPIC).groups.get("writers")
        if group is None:
            return []
        sandbox.broker.settle(group)
        return sorted(sorted(member.pollable()) for member in group.members.values())

    return list(sandbox.call(members))


def all_committed(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, expected: Iterable[int]) -> None:
    """Waits until these messages are committed, and checks that they are stored."""
    expected = list(expected)
    wait_until(lambda: committed(sandbox, stream) >= len(expected), 60, f"{len(expected)} messages to be committed")
    assert numbers(influxdb.points()) == expected


def test_a_group_of_one_reads_all_and_its_offsets_are_the_groups(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 3)
    send(sandbox.address, stream, [message(n) for n in range(3_000)], 3)
    sink = start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP)
    all_committed(sandbox, stream, influxdb, range(3_000))
    assert sink.stop() == 0
    assert "every offset committed" in sink.log()
    send(sandbox.address, stream, [message(n) for n in range(3_000, 4_000)], 2)
    sink.start()
    sink.wait_for(lambda status: status.read == 1_000)
    all_committed(sandbox, stream, influxdb, range(4_000))


def test_a_second_pipeline_takes_its_share_while_the_first_is_busy(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 4)
    send(sandbox.address, stream, [message(n) for n in range(20_000)], 4)
    influxdb.fail({"delay_seconds": 0.05})
    first = start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP, options="window_messages = 3_000")
    first.wait_for(lambda status: status.written >= 1_000)
    second = start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP)
    second.wait_for(lambda status: status.ready)
    wait_until(lambda: shares(sandbox, stream) == [[0, 1], [2, 3]], 20, "the hand-over, well within 30 s")
    send(sandbox.address, stream, [message(n) for n in range(20_000, 24_000)], 4)
    all_committed(sandbox, stream, influxdb, range(24_000))
    assert second.wait_for(lambda status: len(status.partitions) == 2 and status.read)
    first.wait_for(lambda status: len(status.partitions) == 2)
    assert [first.stop(), second.stop()] == [0, 0]


def test_of_three_pipelines_one_is_killed_and_comes_back_and_nothing_is_lost(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 6)
    influxdb.fail({"delay_seconds": 0.03})
    sinks = [start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP) for _ in range(3)]
    wait_until(lambda: list(map(len, shares(sandbox, stream))) == [2, 2, 2], 40, "three shares")
    send(sandbox.address, stream, [message(n) for n in range(12_000)], 6)
    sinks[1].wait_for(lambda status: status.read >= 500)
    sinks[1].process.kill()
    sinks[1].process.wait()
    wait_until(lambda: len(shares(sandbox, stream)) == 2, 20, "the server to see the death")
    send(sandbox.address, stream, [message(n) for n in range(12_000, 15_000)], 6)
    sinks[1].start()
    sinks[1].wait_for(lambda status: status.ready)
    send(sandbox.address, stream, [message(n) for n in range(15_000, 18_000)], 6)
    all_committed(sandbox, stream, influxdb, range(18_000))
    wait_until(lambda: list(map(len, shares(sandbox, stream))) == [2, 2, 2], 40, "three shares again")


def test_a_killed_ingest_and_a_restarted_server_lose_nothing_in_a_group(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(10_000)], 2)
    influxdb.fail({"delay_seconds": 0.03})
    sink = start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP, arguments=["--ingest", "2"])
    sink.wait_for(lambda status: status.written >= 1_000)
    sink.kill("ingest")
    sandbox.call(sandbox.broker.restart, 0.5)
    wait_until(lambda: sandbox.broker.listening, 20, "the server")
    send(sandbox.address, stream, [message(n) for n in range(10_000, 12_000)], 2)
    all_committed(sandbox, stream, influxdb, range(12_000))
    assert sink.stop() == 0


def test_a_log_cut_off_by_a_crash_skips_nothing_in_a_group(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n) for n in range(1_000)])
    sink = start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP)
    all_committed(sandbox, stream, influxdb, range(1_000))
    sandbox.call(sandbox.broker.crash, stream, TOPIC, 0, 1_000, 0.0)
    wait_until(lambda: sandbox.broker.listening, 20, "the server")
    send(sandbox.address, stream, [message(n) for n in range(1_000, 1_500)])
    wait_until(lambda: influxdb.count() == 1_500, 40, "the new messages")
    assert sink.stop() == 0


def test_a_ghosts_partitions_are_named_and_regroup_frees_them(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(1_000)], 2)
    sink = start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP, options="heartbeat_timeout_seconds = 3")
    all_committed(sandbox, stream, influxdb, range(1_000))
    sandbox.call(sandbox.broker.restart, 0.1, True)
    wait_until(lambda: sandbox.broker.listening, 20, "the server")
    wait_until(lambda: len(shares(sandbox, stream)) == 2, 20, "the second membership")
    send(sandbox.address, stream, [message(n) for n in range(1_000, 2_000)], 2)
    wait_until(lambda: "belongs to another member of the group writers" in sink.log(), 40, "the ghost to be named")
    assert influxdb.count() == 1_500
    assert sink.stop() == 0
    done = subprocess.run([sys.executable, "-m", "pipeline", "offsets", "regroup", "-c", str(sink.config)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    sink.start()
    sink.wait_for(lambda status: status.read == 500)
    all_committed(sandbox, stream, influxdb, range(2_000))
