"""When a batch is sent, and that small batches of many partitions and topics share write requests."""

import itertools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import RunningIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, send

PARTITIONS = 40


def flushing(milliseconds: int) -> str:
    """Options of `[pipeline]` with this flush interval."""
    return f"batch_size = 500\nflush_interval_ms = {milliseconds}"


HOURLY = flushing(3_600_000)


def test_a_batch_waits_until_it_is_full_and_what_is_left_is_read_at_the_next_start(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    sink = start_sink(iggy.address, stream, influxdb, batches=HOURLY)
    sink.wait_for(lambda status: status.ready)

    send(iggy.address, stream, [message(n) for n in range(300)])
    send(iggy.address, stream, [message(n) for n in range(300, 510)])
    assert sink.settles(500).batches == 1
    assert sink.stop() == 0
    assert influxdb.count() == 500

    caught_up = start_sink(iggy.address, stream, influxdb, batches=HOURLY, arguments=["--until-caught-up"])
    assert caught_up.ends() == 0
    assert numbers(influxdb.points()) == list(range(510))


def test_a_batch_that_is_not_full_goes_when_the_flush_interval_has_passed(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    sink = start_sink(iggy.address, stream, influxdb, batches=flushing(1_500))
    sink.wait_for(lambda status: status.ready)
    send(iggy.address, stream, [message(n) for n in range(10)])
    sink.settles(10)
    assert numbers(influxdb.points()) == list(range(10))
    assert sink.stop() == 0


def test_with_low_latency_an_idle_pipeline_writes_at_once(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    sink = start_sink(iggy.address, stream, influxdb, batches=HOURLY, options='delivery = "low_latency"')
    sink.wait_for(lambda status: status.ready)
    send(iggy.address, stream, [message(n) for n in range(10)])
    sink.settles(10)
    assert influxdb.count() == 10
    assert sink.stop() == 0


def test_with_low_latency_a_busy_partition_does_not_delay_the_others(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    iggy.create_topic(stream, TOPIC, 4)
    sink = start_sink(iggy.address, stream, influxdb, batches=HOURLY, options='delivery = "low_latency"')
    sink.wait_for(lambda status: status.ready)
    # Whenever nothing is in flight, the busy partition has messages again.
    influxdb.fail({"delay_seconds": 0.3})
    over = threading.Event()

    def load() -> None:
        for number in itertools.count(1_000, 20):
            if over.is_set():
                return
            send(iggy.address, stream, [message(n) for n in range(number, number + 20)])

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        try:
            wait_until(lambda: influxdb.count() >= 200, "the busy partition's messages")
            send(iggy.address, stream, [message(n) for n in range(4)], 4, at_once=1)
            wait_until(lambda: {0, 1, 2, 3} <= set(numbers(influxdb.points())), "the other partitions' messages")
        finally:
            over.set()
        loading.result(60)
    assert sink.stop() == 0


def test_batches_of_many_partitions_share_write_requests(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    iggy.create_topic(stream, TOPIC, PARTITIONS)
    send(iggy.address, stream, [message(n) for n in range(PARTITIONS)], PARTITIONS, at_once=1)
    sink = start_sink(iggy.address, stream, influxdb, batches=flushing(3_000))
    assert sink.settles(PARTITIONS).batches == PARTITIONS
    assert numbers(influxdb.points()) == list(range(PARTITIONS))
    assert influxdb.stats()["requests"] < PARTITIONS / 2
    assert sink.stop() == 0


def test_batches_of_many_topics_share_write_requests(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    topics = [TOPIC, *(f"topic-{n}" for n in range(19))]
    for number, topic in enumerate(topics):
        iggy.create_topic(stream, topic, 1)
        send(iggy.address, stream, [message(number)], topic=topic)
    tables = "".join(f'[[topics]]\nstream = "{stream}"\ntopic = "{topic}"\n' for topic in topics[1:])
    sink = start_sink(iggy.address, stream, influxdb, topic=tables, batches=flushing(3_000))
    sink.settles(len(topics))
    assert {point["measurement"] for point in influxdb.points()} == set(topics)
    assert influxdb.stats()["requests"] < len(topics) / 2
    assert sink.stop() == 0


def test_messages_that_are_refused_in_a_shared_request_become_dead_letters_alone(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink],
        tmp_path: Path) -> None:
    letters = tmp_path / "letters.ndjson"
    iggy.create_topic(stream, TOPIC, PARTITIONS)
    sink = start_sink(iggy.address, stream, influxdb, batches=flushing(3_000), mapping="type_guard = false",
                      dead_letters=f'stores = ["file"]\nfile = "{letters}"')
    sink.wait_for(lambda status: status.ready)
    send(iggy.address, stream, [message(n) for n in range(PARTITIONS)], PARTITIONS, at_once=1)
    sink.settles(PARTITIONS)

    def second(number: int) -> bytes:
        if number % 10 == 3:
            return b"no JSON"
        return message(PARTITIONS + number, **({"value": "text"} if number % 10 == 7 else {}))

    send(iggy.address, stream, [second(n) for n in range(PARTITIONS)], PARTITIONS, at_once=1)
    status = sink.settles(2 * PARTITIONS)
    bad = {(partition, 1) for partition in range(PARTITIONS) if partition % 10 in (3, 7)}
    assert status.rejected == len(bad)
    found = [json.loads(line) for line in letters.read_bytes().splitlines()]
    assert sorted((letter["partition"], letter["offset"]) for letter in found) == sorted(bad)
    assert numbers(influxdb.points()) == sorted(
        [*range(PARTITIONS), *(PARTITIONS + n for n in range(PARTITIONS) if n % 10 not in (3, 7))])
    assert sink.stop() == 0
