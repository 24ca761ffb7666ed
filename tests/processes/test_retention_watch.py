"""Messages that Iggy is about to delete, and partitions that nobody reads, are seen and said."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import Config, TopicConfig
from pipeline.coordinator.ledger import Ledger
from pipeline.coordinator.message_ages import MessageAges
from pipeline.coordinator.retention_watch import RetentionWatch
from pipeline.subscriptions import Subscriptions
from pipeline.wire.sink import Partition
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, send

WHERE = Partition(0, 0)
#: Kind of an option's value.
UINT64 = 12


def test_it_is_warned_of_before_messages_are_deleted(sandbox: SandboxIggy, stream: str,
                                                     caplog: pytest.LogCaptureFixture) -> None:
    def make() -> None:
        sandbox.broker.state.new_stream(stream)
        expiry = (50_000_000).to_bytes(8, "little")
        sandbox.broker.state.new_topic(stream, TOPIC, 1, {"message_expiry": (UINT64, expiry)})

    sandbox.call(make)
    send(sandbox.address, stream, [message(n) for n in range(10)])
    config = Config(iggy=IggyConfig(address=sandbox.address), topics=(TopicConfig(stream=stream, topic=TOPIC),))
    ledger, ages, ends = Ledger(1), MessageAges(), {WHERE: 9}
    ledger.start(WHERE, 0, 2)
    watch = RetentionWatch(config, Subscriptions(config), ledger, ends, ages, logging.getLogger("test"))

    async def look_twice() -> None:
        await watch.look()
        await asyncio.sleep(0.1)
        await watch.look()

    async def scenario() -> None:
        assert (watch.first(WHERE), watch.overtaken_in(WHERE)) == (-1, -1)
        await look_twice()
        assert watch.oldest(WHERE) > 1_700_000_000_000_000
        assert watch.first(WHERE) == 0 and 0 < watch.overtaken_in(WHERE) < 100
        assert f"{stream}/{TOPIC} partition 0: in about " in caplog.text and "message_expiry is 50 s" in caplog.text
        sandbox.call(sandbox.broker.state.expire, stream, TOPIC, 0, 7)
        watch._warned.clear()
        await look_twice()
        assert (watch.first(WHERE), watch.overtaken_in(WHERE)) == (7, 0)
        assert "its log begins at offset 7, and offset 2 is the last one" in caplog.text
        ends[WHERE] = 2
        with caplog.at_level(logging.INFO):
            await watch.look()
        assert (watch.first(WHERE), watch.overtaken_in(WHERE)) == (-1, -1) and "no longer behind" in caplog.text

    asyncio.run(scenario())


def test_partitions_that_nobody_reads_are_in_the_status(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                        start_sink: Callable[..., Sink]) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    sink = start_sink(sandbox.address, stream, influxdb, topic="partitions = [1, 7]")
    status = sink.wait_for(lambda s: bool(s.unread), "a partition without a reader")
    assert [(one.topic, one.partition, one.why, one.lag) for one in status.unread] == [(TOPIC, 7, "missing", 0)]
    assert sink.stop() == 0
