"""Several pipelines in one consumer group: they share a topic, one dies, one comes, nothing is lost."""

import asyncio
import gc
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest
import zmq

from pipeline.commands.config import load_config
from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import Config, Subscription
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError
from pipeline.sockets.endpoints import Endpoints
from pipeline.subscriptions import Subscriptions
from pipeline.testbed.harness.waiting import wait_until
from pipeline.wire import common
from pipeline.wire import sink as wire
from stages.ingest.partition_reader import PartitionReader
from stages.ingest.topic_monitor import TopicMonitor
from tests.support.iggy_servers import RunningIggy, SandboxIggy
from tests.support.sinks import TARGETS, TOPIC, SandboxInflux, Sink, configuration, message, numbers, send

Start = Callable[..., Sink]
GROUP = 'consumer_group = "writers"'


async def of_group(iggy: RunningIggy, stream: str) -> tuple[int, list[list[int]]]:
    """How many messages the group has committed, by its stored offsets; and the partitions of each member."""
    connection = IggyConnection(IggyConfig(address=iggy.address))
    await connection.connect()
    group = Subscription(0, stream, TOPIC, 0, "writers", True)
    shares = await connection.members(group)
    if not shares:
        return 0, []
    offsets = [await connection.stored_offset(group, partition)
               for partition in range(await connection.partitions(stream, TOPIC))]
    return sum(offset + 1 for offset in offsets), sorted(map(sorted, shares))


def committed(iggy: RunningIggy, stream: str) -> int:
    """How many messages the group has committed."""
    return asyncio.run(of_group(iggy, stream))[0]


def shares(iggy: RunningIggy, stream: str) -> list[list[int]]:
    """The partitions of each member."""
    return asyncio.run(of_group(iggy, stream))[1]


def all_committed(iggy: RunningIggy, stream: str, influxdb: SandboxInflux, expected: Iterable[int]) -> None:
    """Waits until these messages are committed, and checks that they are stored."""
    expected = list(expected)
    wait_until(lambda: committed(iggy, stream) >= len(expected), f"{len(expected)} messages to be committed")
    assert numbers(influxdb.points()) == expected


def test_a_group_of_one_reads_all_and_its_offsets_are_the_groups(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 3)
    send(iggy.address, stream, [message(n) for n in range(3_000)], 3)
    sink = start_sink(iggy.address, stream, influxdb, iggy_options=GROUP)
    all_committed(iggy, stream, influxdb, range(3_000))
    assert sink.stop() == 0
    assert "every offset committed" in sink.log()
    send(iggy.address, stream, [message(n) for n in range(3_000, 4_000)], 2)
    sink.start()
    sink.wait_for(lambda status: status.read == 1_000)
    all_committed(iggy, stream, influxdb, range(4_000))


def test_a_second_pipeline_takes_its_share_while_the_first_is_busy(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 4)
    send(iggy.address, stream, [message(n) for n in range(20_000)], 4)
    influxdb.stall_after(4)
    first = start_sink(iggy.address, stream, influxdb, iggy_options=GROUP, options="window_messages = 3_000")
    wait_until(lambda: influxdb.count() >= 500, "the first points")
    second = start_sink(iggy.address, stream, influxdb, iggy_options=GROUP)
    second.wait_for(lambda status: status.ready)
    assert shares(iggy, stream) == [[], [0, 1, 2, 3]]
    influxdb.fail()
    wait_until(lambda: shares(iggy, stream) == [[0, 1], [2, 3]], "the hand-over, within 30 s", 25)
    send(iggy.address, stream, [message(n) for n in range(20_000, 24_000)], 4)
    all_committed(iggy, stream, influxdb, range(24_000))
    assert second.wait_for(lambda status: len(status.partitions) == 2 and status.read)
    first.wait_for(lambda status: len(status.partitions) == 2)
    assert [first.stop(), second.stop()] == [0, 0]


def test_of_three_pipelines_one_is_killed_and_nothing_is_lost(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 6)
    influxdb.stall_after(4)
    sinks = [start_sink(iggy.address, stream, influxdb, iggy_options=GROUP) for _ in range(3)]
    wait_until(lambda: list(map(len, shares(iggy, stream))) == [2, 2, 2], "three shares")
    send(iggy.address, stream, [message(n) for n in range(12_000)], 6)
    sinks[1].wait_for(lambda status: status.read >= 500)
    sinks[1].process.kill()
    sinks[1].process.wait()
    influxdb.fail()
    wait_until(lambda: len(shares(iggy, stream)) == 2, "the server to see the death")
    send(iggy.address, stream, [message(n) for n in range(12_000, 15_000)], 6)
    sinks[1].start()
    sinks[1].wait_for(lambda status: status.ready)
    send(iggy.address, stream, [message(n) for n in range(15_000, 18_000)], 6)
    all_committed(iggy, stream, influxdb, range(18_000))
    wait_until(lambda: list(map(len, shares(iggy, stream))) == [2, 2, 2], "three shares again")


class CountingIggy(IggyConnection):
    """Counts how often it was asked for stored offsets."""

    asked = 0

    async def stored_offset(self, subscription: Subscription, partition: int) -> int:
        """As usual."""
        self.asked += 1
        return await super().stored_offset(subscription, partition)


async def refreshes(sandbox: SandboxIggy, config: Config, delay_seconds: float) -> list[int]:
    """How often each refresh of a second member asks for an offset, while answers are late."""
    owner, iggy = IggyConnection(config.iggy), CountingIggy(config.iggy)
    for connection in (owner, iggy):
        await connection.connect()
    await owner.join(config.subscriptions()[0])
    monitor = TopicMonitor(0, 1, config, Subscriptions(config), iggy, logging.getLogger("test"))
    asked = []
    for _ in range(2):
        sandbox.call(sandbox.broker.delay_answers, delay_seconds)
        before = iggy.asked
        await monitor.refresh({})
        asked.append(iggy.asked - before)
    return asked


def test_a_refresh_over_a_slow_link_asks_for_few_of_the_partitions_of_others(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, tmp_path: Path) -> None:
    sandbox.create_topic(stream, TOPIC, 4)
    path = tmp_path / "c.toml"
    path.write_text(configuration(sandbox.address, stream, influxdb.url, TARGETS["v2"], tmp_path / "run",
                                  iggy_options=GROUP))
    # Each time of its own two partitions, and of one of the others': nothing is read meanwhile, so the next refresh
    # goes on.
    assert asyncio.run(refreshes(sandbox, load_config(str(path)), 0.11)) == [3, 3]


async def evened_out(sandbox: SandboxIggy, config: Config) -> list[int]:
    """How many partitions each of two members has in the end, of which one had all but one."""
    topic = config.subscriptions()[0]
    other, iggy = IggyConnection(config.iggy), IggyConnection(config.iggy)
    for connection in (other, iggy):
        await connection.connect()
    monitor = TopicMonitor(0, 1, config, Subscriptions(config), iggy, logging.getLogger("test"), uneven_seconds=0.1,
                           check_seconds=0.1)
    await monitor.refresh({})
    await other.join(topic)
    # As after two have joined at once: this one has most of them.
    sandbox.call(deal_out, sandbox, topic)
    readers: dict[wire.Partition, PartitionReader] = {}
    while max(sizes := sorted(map(len, await iggy.members(topic)))) - min(sizes) > 1:
        changes = await monitor.refresh(readers)
        for where in (*changes.revoked, *changes.revoked_at_once):
            readers.pop(where, None)
        readers |= {new.start.partition: PartitionReader(new.start.partition, 0) for new in changes.new}
        await asyncio.sleep(0.05)
    assert len(readers) == len(await iggy.assignment(topic) or ())
    return sizes


def deal_out(sandbox: SandboxIggy, topic: Subscription) -> None:
    """All but one partition to the first member."""
    group = sandbox.broker.state.streams[topic.stream].topics[topic.topic].groups["writers"]
    first, second = group.members.values()
    first.partitions, second.partitions = [0, 1, 2, 3, 4], [5]
    group.generation += 1


def test_a_group_that_is_dealt_out_unevenly_becomes_even(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, tmp_path: Path) -> None:
    sandbox.create_topic(stream, TOPIC, 6)
    path = tmp_path / "c.toml"
    path.write_text(configuration(sandbox.address, stream, influxdb.url, TARGETS["v2"], tmp_path / "run",
                                  iggy_options=GROUP))
    assert asyncio.run(asyncio.wait_for(evened_out(sandbox, load_config(str(path))), 60)) == [3, 3]


async def given_up_by(sandbox: SandboxIggy, stream: str, failing: Callable[[IggyConnection], Awaitable[object]]
                      ) -> list[list[int]]:
    """The members once a member has given up a connection on which a call got no answer, and has joined again."""
    group = Subscription(0, stream, TOPIC, 0, "writers", True)
    connection = IggyConnection(IggyConfig(address=sandbox.address, call_timeout_ms=300))
    await connection.connect()
    await connection.join(group)
    sandbox.call(sandbox.broker.hang)
    task = asyncio.ensure_future(failing(connection))
    with pytest.raises(IggyError):
        await task
    sandbox.call(sandbox.broker.resume)
    await connection.ensure_connected()
    await connection.join(group)
    while len(sandbox.broker.connections) > 1:
        await asyncio.sleep(0.01)
    return await connection.members(group)


@pytest.mark.parametrize("failing", [
    lambda iggy: iggy.partitions("any", TOPIC), lambda iggy: iggy.send("any", TOPIC, [b"1"], 0)], ids=["ask", "send"])
def test_a_connection_that_is_given_up_is_closed_at_once_and_its_partitions_are_free(
        sandbox: SandboxIggy, stream: str, failing: Callable[[IggyConnection], Awaitable[object]]) -> None:
    sandbox.create_topic(stream, TOPIC, 4)
    # An error that a task has raised keeps its frames until the garbage is collected: a client in one of them would
    # go on sending signs of life, and stay a member.
    gc.disable()
    try:
        assert asyncio.run(asyncio.wait_for(given_up_by(sandbox, stream, failing), 60)) == [[0, 1, 2, 3]]
    finally:
        gc.enable()


def test_a_killed_ingest_and_a_restarted_server_lose_nothing_in_a_group(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(10_000)], 2)
    influxdb.stall_after(4)
    sink = start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP, arguments=["--readers", "2"])
    sink.wait_for(lambda status: status.ready)
    wait_until(lambda: influxdb.count() >= 500, "the first points")
    sink.kill("ingest")
    sandbox.call(sandbox.broker.restart, 0.5)
    influxdb.fail()
    wait_until(lambda: sandbox.broker.listening, "the server")
    send(sandbox.address, stream, [message(n) for n in range(10_000, 12_000)], 2)
    all_committed(sandbox, stream, influxdb, range(12_000))
    assert sink.stop() == 0


def test_a_partition_credited_to_the_wrong_ingest_is_read_again(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(1_000)], 2)
    sink = start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP, arguments=["--readers", "2"],
                      options="heartbeat_timeout_ms = 3_000")
    status = sink.wait_for(lambda status: status.ready and status.written == 1_000)
    # Each has one partition, and reads it.
    wait_until(lambda: shares(sandbox, stream) == [[0], [1]], "two shares")
    send(sandbox.address, stream, [message(n) for n in range(1_000, 1_100)], 2)
    wait_until(lambda: influxdb.count() == 1_100, "both to read")
    # As if the other had looked before this one, and the coordinator had heard of it after it: too late to be true. It
    # takes the other's name, which has to be replaced for that.
    late: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    late.setsockopt(zmq.IDENTITY, b"ingest-1")
    late.connect(Endpoints(str(sink.folder / "run")).control)
    places = [wire.Partition(0, 0), wire.Partition(0, 1)]
    late_reports = (wire.Started(status.epoch, [wire.PartitionStart(where, 0, -1, 550) for where in places]),
                    wire.Revoked(status.epoch, places))

    def restarted() -> bool:
        # The replaced process takes its name back, and what the coordinator has not read by then is lost: sent again.
        for report in late_reports:
            late.send(common.encode(report))
        try:
            wait_until(lambda: "assigned to another ingest process" in sink.log(), "the coordinator's answer", 5)
        except PipelineError:
            return False
        return True

    wait_until(restarted, "the coordinator to see it")
    late.close()
    send(sandbox.address, stream, [message(n) for n in range(1_100, 3_000)], 2)
    all_committed(sandbox, stream, influxdb, range(3_000))
    assert sink.stop() == 0
    assert sink.log().count("ingest is reading") <= 2


def test_a_log_cut_off_by_a_crash_skips_nothing_in_a_group(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n) for n in range(1_000)])
    sink = start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP)
    all_committed(sandbox, stream, influxdb, range(1_000))
    sandbox.call(sandbox.broker.crash, stream, TOPIC, 0, 1_000, 0.0)
    wait_until(lambda: sandbox.broker.listening, "the server")
    send(sandbox.address, stream, [message(n) for n in range(1_000, 1_500)])
    wait_until(lambda: influxdb.count() == 1_500, "the new messages")
    assert sink.stop() == 0


def test_a_ghosts_partitions_are_named_and_regroup_frees_them(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(1_000)], 2)
    sink = start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP, options="heartbeat_timeout_ms = 3_000")
    all_committed(sandbox, stream, influxdb, range(1_000))
    sandbox.call(sandbox.broker.restart, 0.1, True)
    wait_until(lambda: sandbox.broker.listening, "the server")
    wait_until(lambda: len(shares(sandbox, stream)) == 2, "the second membership")
    send(sandbox.address, stream, [message(n) for n in range(1_000, 2_000)], 2)
    sink.wait_for_log("belongs to another member")
    unread = sink.wait_for(lambda s: bool(s.unread), "the partitions of the ghost").unread
    assert {one.why for one in unread} == {"ghost"} and all(one.lag > 0 for one in unread)
    assert influxdb.count() == 1_500
    assert sink.stop() == 0
    done = subprocess.run([sys.executable, "-m", "pipeline", "offsets", "regroup", "-c", str(sink.config)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    sink.start()
    sink.wait_for(lambda status: status.read == 500)
    all_committed(sandbox, stream, influxdb, range(2_000))
