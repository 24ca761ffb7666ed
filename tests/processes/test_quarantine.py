"""A message that kills or hangs whoever has it in hand: it is cornered, becomes a dead letter, and all else goes on."""

import json
import signal
from collections.abc import Callable
from functools import partial

from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import RunningIggy
from tests.support.killer import Killer, kill
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, read_topic, send

Start = Callable[..., Sink]
POISON = 3_141
#: One poison takes at least four deaths among 5,000 messages, of which none may count.
BATCHES = "batch_size = 5_000\nflush_interval_ms = 50"


def slow(number: int) -> bytes:
    """Message `number`, which an encoder has in hand long enough for a test to see it."""
    return message(number, slow={f"k{key}": str(key) for key in range(9_000)})


def messages(count: int) -> list[bytes]:
    """So many messages, one of them slow."""
    return [slow(number) if number == POISON else message(number) for number in range(count)]


def letters(iggy: RunningIggy, stream: str) -> list[tuple[str, int, int, str]]:
    """The dead letters: topic, partition, offset and reason."""
    read = [json.loads(record) for record in read_topic(iggy.address, stream, "influxdb-dlq")]
    return [(one["topic"], one["partition"], one["offset"], one["reason"]) for one in read]


def check_that_only_the_poison_is_missing(sink: Sink, iggy: RunningIggy, stream: str, influxdb: SandboxInflux,
                                          killer: Killer, count: int) -> None:
    """The poison is one dead letter, all else is written, and the pipeline goes on."""
    sink.settles(count)
    assert letters(iggy, stream) == [(TOPIC, 0, POISON, "quarantined")]
    assert numbers(influxdb.points()) == [number for number in range(count) if number != POISON]
    assert {work.last for _, work in killer.signalled} >= {POISON}
    assert len(killer.signalled) <= 12, killer.signalled
    send(iggy.address, stream, [message(number) for number in range(count, count + 500)])
    sink.settles(count + 500)
    assert len(letters(iggy, stream)) == 1
    assert sink.stop() == 0


def test_a_message_that_kills_encoders_is_found_and_its_deaths_do_not_count(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    iggy.create_topic(stream, "influxdb-dlq", 1)
    send(iggy.address, stream, messages(12_000))
    sink = start_sink(iggy.address, stream, influxdb, batches=BATCHES, options="max_restarts = 1")
    with Killer(sink, ["encode-0", "encode-1"], {POISON}) as killer:
        check_that_only_the_poison_is_missing(sink, iggy, stream, influxdb, killer, 12_000)
    sink.wait_for_log(f"offset {POISON} is quarantined")


def test_a_message_that_hangs_encoders_is_cornered(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    iggy.create_topic(stream, "influxdb-dlq", 1)
    send(iggy.address, stream, messages(5_000))
    sink = start_sink(iggy.address, stream, influxdb, batches=BATCHES,
                      options="max_restarts = 1\nheartbeat_timeout_ms = 3_000")
    with Killer(sink, ["encode-0", "encode-1"], {POISON}, signal.SIGSTOP) as killer:
        check_that_only_the_poison_is_missing(sink, iggy, stream, influxdb, killer, 5_000)
    sink.wait_for_log("hung for 3 s")


def test_a_coordinator_that_takes_over_goes_on_with_the_search(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    iggy.create_topic(stream, "influxdb-dlq", 1)
    send(iggy.address, stream, messages(5_000))
    sink = start_sink(iggy.address, stream, influxdb, batches=BATCHES, options="max_restarts = 4")
    with Killer(sink, ["encode-0", "encode-1"], {POISON}) as killer:
        for deaths in (1, 2, 3):
            wait_until(partial(killer.has_signalled, deaths), f"{deaths} deaths")
            kill(sink, "coordinator")
        check_that_only_the_poison_is_missing(sink, iggy, stream, influxdb, killer, 5_000)
