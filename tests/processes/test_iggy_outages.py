"""Iggy goes away, hangs, loses messages, changes its topics: each is survived, and said once with what it means."""

from collections.abc import Callable

import pytest

from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, send

Start = Callable[..., Sink]


def running(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, partitions: int = 1,
            **options: str) -> Sink:
    """A pipeline that has written messages 0 to 999."""
    sandbox.create_topic(stream, TOPIC, partitions)
    send(sandbox.address, stream, [message(n) for n in range(1_000)], partitions)
    sink = start_sink(sandbox.address, stream, influxdb, **options)
    sink.settles(1_000)
    return sink


def stores(sandbox: SandboxIggy, stream: str, offset: int | None, partition: int = 0) -> None:
    """Waits until this offset is stored."""
    state = sandbox.broker.state
    wait_until(lambda: sandbox.call(state.stored_offset, stream, TOPIC, partition, "pipeline") == offset,
               f"offset {offset} to be stored")


def written(influxdb: SandboxInflux, *ranges: range) -> None:
    """Waits until the points of exactly these messages are stored."""
    expected = sorted(n for part in ranges for n in part)
    wait_until(lambda: influxdb.count() == len(expected), f"{len(expected)} points")
    assert numbers(influxdb.points()) == expected


def test_a_restart_of_the_server_is_survived(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                             start_sink: Start) -> None:
    sink = running(sandbox, stream, influxdb, start_sink)
    sandbox.call(sandbox.broker.restart, 1.0)
    sink.wait_for_log("reading is interrupted")
    wait_until(lambda: sandbox.broker.listening, "the server")
    send(sandbox.address, stream, [message(n) for n in range(1_000, 2_000)])
    sink.settles(2_000)
    assert numbers(influxdb.points()) == list(range(2_000))
    assert sink.stop() == 0
    assert sink.log().count("reading is interrupted") <= 3


def test_resets_cut_replies_and_slow_answers_are_survived(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                          start_sink: Start) -> None:
    sink = running(sandbox, stream, influxdb, start_sink)
    sandbox.call(sandbox.broker.delay_answers, 0.05)
    for first in range(1_000, 3_000, 500):
        sandbox.call(sandbox.broker.cut_polls, 1)
        send(sandbox.address, stream, [message(n) for n in range(first, first + 500)])
        sandbox.call(sandbox.broker.drop_connections)
    sink.settles(3_000)
    assert numbers(influxdb.points()) == list(range(3_000))


def test_a_call_that_is_never_answered_costs_only_the_connection(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sink = running(sandbox, stream, influxdb, start_sink, iggy_options="call_timeout_ms = 2_000")
    before = len(sink.log())
    sandbox.call(sandbox.broker.hang)
    sink.wait_for(lambda status: "gave no answer within 2 s" in status.retrying.get("ingest", ""))
    sandbox.call(sandbox.broker.resume)
    sink.wait_for(lambda status: not status.retrying)
    assert sink.log()[before:].count("reading continues, after") == 1
    send(sandbox.address, stream, [message(n) for n in range(1_000, 2_000)])
    sink.settles(2_000)
    assert numbers(influxdb.points()) == list(range(2_000))


def test_added_partitions_are_read_from_their_beginning(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                        start_sink: Start) -> None:
    sink = running(sandbox, stream, influxdb, start_sink)
    sandbox.call(sandbox.broker.state.add_partitions, stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(1_000, 2_500)], 3)
    status = sink.settles(2_500)
    assert len(status.partitions) == 3
    assert numbers(influxdb.points()) == list(range(2_500))


def test_messages_that_expired_unread_are_named_and_counted(sandbox: SandboxIggy, stream: str,
                                                            influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n) for n in range(1_000)])
    sink = start_sink(sandbox.address, stream, influxdb)
    sink.settles(1_000)
    assert sink.stop() == 0
    send(sandbox.address, stream, [message(n) for n in range(1_000, 2_000)])
    sandbox.call(sandbox.broker.state.expire, stream, TOPIC, 0, 1_300)
    sink.start()
    status = sink.wait_for(lambda status: status.written == 700)
    assert status.missed == 300
    assert [(gap.topic, gap.partition, gap.first, gap.last) for gap in status.gaps] == [(TOPIC, 0, 1_000, 1_299)]
    assert sink.log().count("offsets 1000 to 1299 have expired in Iggy before they were read") == 1
    written(influxdb, range(1_000), range(1_300, 2_000))


def test_what_expired_before_the_first_start_is_no_gap(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                       start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n) for n in range(1_000)])
    sandbox.call(sandbox.broker.state.expire, stream, TOPIC, 0, 400)
    sink = start_sink(sandbox.address, stream, influxdb)
    status = sink.wait_for(lambda status: status.written == 600)
    assert status.missed == 0


@pytest.mark.parametrize("lose", [300, 1_000])
@pytest.mark.parametrize("refill", [0, 100, 1_500])
def test_no_new_message_is_skipped_when_a_crash_has_cut_the_log_off(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, lose: int, refill: int) -> None:
    """Also when the new ones have filled the log beyond our position before we are back."""
    sink = running(sandbox, stream, influxdb, start_sink)
    sandbox.call(sandbox.broker.crash, stream, TOPIC, 0, lose, 0.0)
    wait_until(lambda: sandbox.broker.listening, "the server")
    if refill:
        send(sandbox.address, stream, [message(n) for n in range(1_000, 1_000 + refill)])
    sink.wait_for_log("Reading continues at offset")
    send(sandbox.address, stream, [message(n) for n in range(3_000, 3_100)])
    written(influxdb, range(1_000), range(1_000, 1_000 + refill), range(3_000, 3_100))
    stores(sandbox, stream, 1_000 - lose + refill + 100 - 1)
    assert sink.log().count("Reading continues at offset") == 1
    sink.wait_for(lambda status: status.truncations == 1 and status.read == 1_000 + refill + 100)
    assert sink.stop() == 0


def test_a_crash_while_batches_are_in_flight_loses_nothing_that_is_there(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    send(sandbox.address, stream, [message(n) for n in range(2_000)])
    influxdb.fail({"status": 503})
    sink = start_sink(sandbox.address, stream, influxdb)
    sink.wait_for(lambda status: status.read == 2_000 and status.retrying)
    sandbox.call(sandbox.broker.crash, stream, TOPIC, 0, 800, 0.0)
    sink.wait_for_log("Reading continues at offset 1200")
    sink.kill("encode-0")
    sink.kill("write-0")
    send(sandbox.address, stream, [message(n) for n in range(5_000, 5_500)])
    influxdb.fail()
    stores(sandbox, stream, 1_699)
    found = numbers(influxdb.points())
    assert set(found) >= {*range(1_200), *range(5_000, 5_500)}
    assert sink.stop() == 0


def test_a_crash_while_the_pipeline_is_down_skips_nothing(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                          start_sink: Start) -> None:
    sink = running(sandbox, stream, influxdb, start_sink)
    assert sink.stop() == 0
    sandbox.call(sandbox.broker.crash, stream, TOPIC, 0, 1_000, 0.0)
    wait_until(lambda: sandbox.broker.listening, "the server")
    send(sandbox.address, stream, [message(n) for n in range(1_000, 1_010)])
    sink.start()
    written(influxdb, range(1_010))


def test_on_truncation_reread_reads_all_that_is_there(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                      start_sink: Start) -> None:
    sink = running(sandbox, stream, influxdb, start_sink, topic='on_truncation = "reread"')
    sandbox.call(sandbox.broker.crash, stream, TOPIC, 0, 300, 0.0)
    status = sink.wait_for(lambda status: status.read == 1_700)
    assert status.truncations == 1
    stores(sandbox, stream, 699)


def test_on_truncation_stop_stops_with_the_reason(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                  start_sink: Start) -> None:
    sink = running(sandbox, stream, influxdb, start_sink, options='on_truncation = "stop"')
    sandbox.call(sandbox.broker.crash, stream, TOPIC, 0, 300, 0.0)
    assert sink.ends() == 1
    assert f"error: {stream}/{TOPIC} partition 0: the log was truncated and now ends at offset 699" in sink.log()


@pytest.mark.parametrize("refill", [10, 1_500])
def test_a_topic_deleted_and_made_again_is_read_from_its_beginning(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, refill: int) -> None:
    sink = running(sandbox, stream, influxdb, start_sink)
    sandbox.call(sandbox.broker.state.recreate_topic, stream, TOPIC)
    send(sandbox.address, stream, [message(n) for n in range(1_000, 1_000 + refill)])
    written(influxdb, range(1_000 + refill))
    stores(sandbox, stream, refill - 1)
    assert sink.log().count("partition 0: the log was created again") == 1


def test_a_missing_topic_does_not_hold_up_another(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                  start_sink: Start) -> None:
    sandbox.create_topic(stream, "other", 1)
    sink = running(sandbox, stream, influxdb, start_sink,
                   topic=f'[[topics]]\nstream = "{stream}"\ntopic = "other"')

    def delete() -> None:
        del sandbox.broker.state.stream(stream).topics["other"]

    sandbox.call(delete)
    sink.wait_for_log(f"{stream}/other is missing")
    send(sandbox.address, stream, [message(n) for n in range(1_000, 2_000)])
    written(influxdb, range(2_000))
    sandbox.create_topic(stream, "other", 1)
    sink.wait_for_log(f"{stream}/other exists again")
    assert sink.log().count("is missing") == 1


def test_a_topic_created_after_the_start_is_read_from_its_first_message(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, "other", 1)
    sink = start_sink(sandbox.address, stream, influxdb,
                      topic=f'start_from = "latest"\n[[topics]]\nstream = "{stream}"\ntopic = "other"')
    sink.wait_for_log(f"{stream}/{TOPIC} is missing")
    sink.wait_for(lambda status: status.ready)
    sandbox.create_topic(stream, TOPIC, 2)
    send(sandbox.address, stream, [message(n) for n in range(1_000)], 2)
    written(influxdb, range(1_000))
    assert sink.stop() == 0


def test_several_ingest_processes_share_the_partitions(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                       start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 5)
    send(sandbox.address, stream, [message(n) for n in range(10_000)], 5)
    influxdb.stall_after(4)
    sink = start_sink(sandbox.address, stream, influxdb, arguments=["--readers", "3"])
    sink.wait_for(lambda status: "ingest-2" in status.pids)
    wait_until(lambda: influxdb.count() >= 500, "the first points")
    sink.kill("ingest-1")
    influxdb.fail()
    sink.settles(10_000)
    assert numbers(influxdb.points()) == list(range(10_000))
    assert sink.stop() == 0
