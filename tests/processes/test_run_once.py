"""`pipeline start --until-caught-up` and `--once`: batch jobs that end by themselves."""

from collections.abc import Callable

import pytest

from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, send

Start = Callable[..., Sink]


@pytest.mark.parametrize("ingest", ["1", "2"])
def test_until_caught_up_writes_what_was_there_and_ends_with_0(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, ingest: str) -> None:
    sandbox.create_topic(stream, TOPIC, 4)
    send(sandbox.address, stream, [message(n) for n in range(2_700)], 3)
    influxdb.fail({"delay_seconds": 1.0, "times": 3})
    sink = start_sink(sandbox.address, stream, influxdb, arguments=["--until-caught-up", "--readers", ingest])
    sink.wait_for(lambda status: status.read and len(status.partitions) == 4)
    send(sandbox.address, stream, [message(n) for n in range(5_000, 5_100)], 1)
    assert sink.ends() == 0
    assert numbers(influxdb.points()) == list(range(2_700))
    assert "2700 messages read, 2700 points written, 0 rejected, every offset committed" in sink.log()
    sink.start()
    assert sink.ends() == 0
    assert numbers(influxdb.points()) == [*range(2_700), *range(5_000, 5_100)]


def test_until_caught_up_of_an_empty_topic_ends_at_once(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                        start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    sink = start_sink(sandbox.address, stream, influxdb, arguments=["--until-caught-up"])
    assert sink.ends() == 0


def test_until_caught_up_ends_though_messages_have_expired_or_were_lost(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 3)
    send(sandbox.address, stream, [message(n) for n in range(3_000)], 3)
    sandbox.call(sandbox.broker.state.expire, stream, TOPIC, 0, 1_000)
    influxdb.fail({"status": 503})
    sink = start_sink(sandbox.address, stream, influxdb, arguments=["--until-caught-up"],
                      options="window_messages = 600")
    sink.wait_for(lambda status: status.read >= 600)
    sandbox.call(sandbox.broker.state.expire, stream, TOPIC, 1, 1_000)
    sandbox.call(sandbox.broker.crash, stream, TOPIC, 2, 900, 0.0)
    influxdb.fail()
    assert sink.ends() == 0


def test_until_caught_up_ends_though_a_process_is_killed(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                         start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(10_000)], 2)
    influxdb.fail({"status": 503})
    sink = start_sink(sandbox.address, stream, influxdb, arguments=["--until-caught-up"],
                      options="window_messages = 4_000")
    sink.wait_for(lambda status: status.read == 4_000 and status.retrying)
    sink.kill("ingest")
    sink.kill("encode-0")
    influxdb.fail()
    assert sink.ends() == 0
    assert numbers(influxdb.points()) == list(range(10_000))


def test_once_writes_one_batch_of_each_partition(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                 start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 3)
    send(sandbox.address, stream, [message(n) for n in range(2_200)], 2)
    sink = start_sink(sandbox.address, stream, influxdb, arguments=["--once"])
    assert sink.ends() == 0
    assert numbers(influxdb.points()) == list(range(1_000))
    sink.start()
    assert sink.ends() == 0
    assert numbers(influxdb.points()) == list(range(2_000))


def test_a_signal_ends_it_sooner(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                 start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n) for n in range(1_000)])
    influxdb.fail({"status": 503})
    sink = start_sink(sandbox.address, stream, influxdb, arguments=["--until-caught-up", "--drain-timeout-ms", "500"])
    sink.wait_for(lambda status: status.read == 1_000)
    assert sink.stop() == 1
