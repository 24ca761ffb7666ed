"""Topics by pattern: found at the start and while the pipeline runs, whatever dies; never the pipeline's own."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable

import pytest

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import Config, TopicConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.subscriptions import Subscriptions
from pipeline.testbed.harness.waiting import wait_until
from stages.ingest.topic_finder import Listing, TopicFinder
from tests.support.iggy_servers import RunningIggy, SandboxIggy
from tests.support.killer import kill
from tests.support.sinks import SandboxInflux, Sink, message, read_topic, send

CONFIG = """
[iggy]
address = "{iggy}"
[[topics]]
stream = "{stream}"
topic = "*"
exclude = ["internal-*"]
[[topics]]
stream = "{stream}"
topic = "explicit"
[mapping]
measurement_from = "topic"
tag_fields = ["device"]
timestamp_from = "field"
timestamp_field = "ts"
timestamp_format = "epoch_ns"
[influxdb]
url = "{influxdb}"
{target}
retry_backoff_ms = 20
retry_backoff_max_ms = 200
[dead_letters]
topic = "rejected"
[pipeline]
flush_interval_ms = 20
readers = 2
runtime_dir = "{folder}"
[http]
listen = ""
"""
COUNT = 200


def test_topics_are_found_whatever_dies(iggy: RunningIggy, stream: str, influxdb: SandboxInflux,
                                        start_sink: Callable[..., Sink]) -> None:
    sent: dict[str, int] = {}

    def more(topic: str, partitions: int = 2, count: int = COUNT) -> None:
        first = sent.get(topic, 0)
        send(iggy.address, stream, [message(n) for n in range(first, first + count)], partitions, 50, topic)
        sent[topic] = first + count

    def written() -> dict[str, int]:
        found: dict[str, int] = {}
        for point in influxdb.points():
            found[point["measurement"]] = found.get(point["measurement"], 0) + 1
        return found

    for topic in ("sensors.a", "explicit", "internal-x", "influxdb-dlq"):
        iggy.create_topic(stream, topic, 2)
        more(topic)
    iggy.create_topic(stream, "123", 1)
    unread = {"internal-x", "influxdb-dlq"}
    sink = start_sink(iggy.address, stream, influxdb, config=CONFIG)

    def expected() -> dict[str, int]:
        return {topic: count for topic, count in sent.items() if topic not in unread}

    wait_until(lambda: written() == expected(), "the points of all topics")
    for number, name in enumerate(("ingest", "coordinator", "encode-0", "write-0", "ingest-1")):
        topic = f"sensors.new-{number}"
        iggy.create_topic(stream, topic, 3)
        more(topic, 3)
        kill(sink, name)
        more(topic, 3)
        more("sensors.a")
        more("explicit")
    send(iggy.address, stream, [b"not JSON"], topic="sensors.new-0")
    wait_until(lambda: written() == expected(), "the points of all topics")
    wait_until(lambda: len(read_topic(iggy.address, stream, "rejected")) == 1, "the dead letter")
    assert sink.stop() == 0
    iggy.create_topic(stream, "sensors.meanwhile", 1)
    more("sensors.meanwhile", 1)
    more("sensors.new-1", 3)
    sink.start()
    wait_until(lambda: written() == expected(), "the points of all topics")
    status = sink.wait_for(lambda s: s.read >= 2 * COUNT and not any(one.lag for one in s.partitions), "no lag")
    assert status.read == 2 * COUNT, "offsets of found topics are stored"
    assert {one.topic for one in status.partitions} == {one.topic for one in status.topics} == set(expected())
    [letter] = [json.loads(record) for record in read_topic(iggy.address, stream, "rejected")]
    assert (letter["topic"], letter["stage"]) == ("sensors.new-0", "encode")
    assert sink.stop() == 0
    assert "Traceback" not in sink.log()


#: Another pipeline: it locks what its configuration names, and lives until its input ends.
OTHER = """
import sys
from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import Config, TopicConfig
from pipeline.locks import Locks, lock_offsets
topics = tuple(TopicConfig(stream=sys.argv[2], topic=topic) for topic in ("a", "*"))
lock_offsets(Locks(), Config(iggy=IggyConfig(address=sys.argv[1]), topics=topics))
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_topic_that_another_pipeline_reads_is_left_to_it(sandbox: SandboxIggy, stream: str,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    for topic in ("a", "b", "*"):  # the last is a name, and not the pattern that the other pipeline reads
        sandbox.create_topic(stream, topic, 1)
    config = Config(iggy=IggyConfig(address=sandbox.address), topics=(TopicConfig(stream=stream, topic="*"),))
    topics, iggy = Subscriptions(config), IggyConnection(config.iggy)
    listing = Listing(iggy)
    finder = TopicFinder(0, config, topics, iggy, listing, logging.getLogger("test"))

    async def found() -> list[str]:
        listing.clear()
        await iggy.ensure_connected()
        return [topics[id_].topic for id_ in await finder.find()]

    async def scenario() -> None:
        with subprocess.Popen([sys.executable, "-c", OTHER, sandbox.address, stream], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as other:
            assert other.stdout is not None and other.stdout.readline() == b"locked\n"
            assert sorted(await found()) == ["*", "b"] and await found() == []
            assert f"(process {other.pid}) reads {stream}/a of" in caplog.text and caplog.text.count("already") == 1
        assert await found() == ["a"] and await found() == []

    asyncio.run(scenario())
