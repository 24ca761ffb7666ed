"""A source whose state is in a topic of Iggy: what is killed, torn, damaged, foreign, or written by two at once."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.plan import EPOCH_BITS
from pipeline.config.source_schema import OutputConfig, SourceConfig, SourceInfluxConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.source_coordinator.state import SourceState, StateError, encode_state, identity_of
from pipeline.source_coordinator.state_parts import PART_BYTES, Writer, cut
from pipeline.source_coordinator.state_topic import TOPIC_OPTIONS, StateTaken, StateTopic
from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import RunningIggy, SandboxIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.relay import relay_to
from tests.support.sinks import SandboxInflux
from tests.support.sources import Source, soon

#: Kind of a topic's option. Source: `pipeline.testbed.sandbox.iggy.protocol`.
UINT64 = 12
NOW = FIRST_TIME = 1_700_000_000_000_000_000
TABLE = 'database = "sandbox"\nversion = "v1"'
PROCESSES = ("source-coordinator", "query", "convert-0", "produce")
LOGGER = logging.getLogger("test")
Start = Callable[..., Source]


@pytest.fixture
def sandbox_v1() -> Iterator[SandboxInflux]:
    """A sandbox InfluxDB 1."""
    with running_influxdb(flavour="v1") as server:
        yield SandboxInflux(server.url, "v1")


@pytest.fixture
def start(tmp_path: Path, iggy: RunningIggy, stream: str, sandbox_v1: SandboxInflux) -> Iterator[Start]:
    """Starts sources whose state is in the topic "state" of the test's stream; all end with the test."""
    with ExitStack() as running:
        def begin(**options: Any) -> Source:
            folder = tmp_path / f"p{len(list(tmp_path.iterdir()))}"
            run = Source(folder, options.pop("address", iggy.address), sandbox_v1.url,
                         options.pop("table", TABLE), stream, state=f'state_topic = "{stream}/state"', **options)
            running.callback(run.close)
            return run

        yield begin


def write(influxdb: SandboxInflux, first: int, count: int, begin: int = FIRST_TIME) -> None:
    """Stores points with the numbers from `first` on, a second between them; `begin`: nanoseconds since 1970."""
    lines = [f"m,device=d{n % 7} i={n}i {begin + (n - first) * 10**9}" for n in range(first, first + count)]
    answer = requests.post(influxdb.url + "/write?db=sandbox", data="\n".join(lines).encode(), timeout=60)
    assert answer.status_code == 204, answer.text


def numbers(run: Source) -> Counter[int]:
    """How often each point has come to Iggy."""
    return Counter(point["fields"]["i"] for point in run.points())


def offsets(run: Source, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `pipeline offsets` on the configuration of a source."""
    done = subprocess.run([sys.executable, "-m", "pipeline", "offsets", arguments[0], "-c", str(run.config),
                           *arguments[1:]], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def source_of(stream: str, **more: Any) -> SourceConfig:
    """A source whose state is in the topic "state" of a stream."""
    return SourceConfig(name="source", state_topic=f"{stream}/state", output=OutputConfig(stream=stream),
                        influxdb=SourceInfluxConfig(database="sandbox"), **more)


def topic_of(iggy: RunningIggy, stream: str, run: str = "run") -> StateTopic:
    """Where the state is kept, for a pipeline of its own."""
    return StateTopic(IggyConfig(address=iggy.address), source_of(stream), Writer(run, f"pipeline {run}"), LOGGER)


def state_of(stream: str, mark: int, points: int = 0) -> SourceState:
    """A state with one mark, and so many fingerprints."""
    return SourceState(identity_of(source_of(stream)), NOW, {"m": mark},
                       {"m": {n * 2**40: (NOW + n, n) for n in range(points)}} if points else {})


async def put(iggy: RunningIggy, stream: str, payload: bytes, headers: dict[str, str] | None) -> None:
    """Sends a message to the topic of the state."""
    connection = IggyConnection(IggyConfig(address=iggy.address))
    await connection.ensure_connected()
    await connection.send(stream, "state", [payload], 0, headers)


def test_a_pipeline_makes_the_topic_and_goes_on_where_it_stopped(
        start: Start, sandbox_v1: SandboxInflux, stream: str) -> None:
    write(sandbox_v1, 0, 500)
    run = start(source="page_size = 100", arguments=["--until-caught-up"])
    assert run.ends() == 0
    assert f"topic {stream}/state of Iggy" in run.log()
    write(sandbox_v1, 500, 1, time.time_ns())
    run.start()
    assert run.ends() == 0
    assert "stored watermarks of 1 measurements" in run.log()
    assert numbers(run) == Counter(range(501))
    assert not run.state_file.exists()
    assert "no max_topic_size" not in run.log()


@pytest.mark.parametrize("overlap", ["", "overlap_ms = 3_600_000"], ids=["plain", "overlap"])
def test_nothing_is_missing_when_each_process_is_killed_on_the_way(
        start: Start, sandbox_v1: SandboxInflux, overlap: str) -> None:
    # Fingerprints are kept of what the overlap of now will read again.
    begin = time.time_ns() - 4_100 * 10**9
    write(sandbox_v1, 0, 4_000, begin)
    sandbox_v1.fail({"delay_seconds": 0.15, "query": True, "match": "ORDER"})
    run = start(source=f"page_size = 100\npages_in_flight = 3\n{overlap}", options="commit_interval_ms = 20")
    for points, process in enumerate(PROCESSES, 1):
        mark = begin + points * 400 * 10**9
        run.wait_for(lambda status, mark=mark: status.measurements and status.measurements[0].watermark > mark)  # type: ignore[misc]
        run.kill(process)
    run.close()
    before = sum(numbers(run).values())
    assert len(numbers(run)) < 4_000
    sandbox_v1.fail()
    assert run.status is not None
    # A coordinator that is not dead yet may still publish, and the new one must have handlers before it is signalled.
    old_run = run.status.epoch >> EPOCH_BITS
    run.start()
    run.wait_for(lambda status: status.epoch >> EPOCH_BITS != old_run and status.measurements
                 and status.measurements[0].watermark > begin + 3_999 * 10**9)
    assert run.stop() == 0
    assert set(numbers(run)) == set(range(4_000))
    # It resumed at the stored watermark: from the start, it would have sent all of them again.
    assert sum(numbers(run).values()) < before + 4_000


def test_offsets_are_shown_set_and_reset(start: Start, sandbox_v1: SandboxInflux, stream: str) -> None:
    write(sandbox_v1, 0, 100)
    run = start(arguments=["--until-caught-up"])
    assert run.ends() == 0
    code, text = offsets(run, "show")
    assert code == 0 and f"{stream}/state" in text and "source" in text
    middle = "2023-11-14T22:14:10Z"  # FIRST_TIME and 50 s
    assert offsets(run, "set", "--source", "source", "--measurement", "m", "--time", middle) == (
        0, f"source m: reading begins at {middle}\n")
    assert "2023-11-14T22:14:10.000000000Z" in offsets(run, "show")[1]
    run.start()
    assert run.ends() == 0
    assert numbers(run) == Counter([*range(100), *range(50, 100)])
    assert offsets(run, "reset", "--to", "earliest")[0] == 0
    run.start()
    assert run.ends() == 0
    assert numbers(run) == Counter([*range(100), *range(50, 100), *range(100)])


def test_a_mark_that_is_moved_under_a_pipeline_stops_it(start: Start, sandbox_v1: SandboxInflux, stream: str) -> None:
    write(sandbox_v1, 0, 10)
    run = start()
    run.wait_for(lambda status: status.points == 10)
    code, text = offsets(run, "reset", "--to", "earliest")
    assert code == 1 and f"keeps a state in {stream}/state" in text
    assert offsets(run, "reset", "--to", "earliest", "--force")[0] == 0
    write(sandbox_v1, 10, 2, soon())
    assert run.ends() == 1
    assert "(pipeline offsets, process" in run.log()


def test_of_two_pipelines_on_two_hosts_the_first_stops(
        start: Start, sandbox_v1: SandboxInflux, iggy: RunningIggy) -> None:
    write(sandbox_v1, 0, 50)
    first = start()
    first.wait_for(lambda status: status.points == 50)
    refused = start()
    assert refused.ends() == 1 and "already; stop it, or give another state_topic" in refused.log()
    # From another host, no lock is seen; here, the address is another one.
    with relay_to(iggy.address) as address:
        second = start(address=address)
        second.wait_for(lambda status: status.ready)
        # Where both will still read.
        write(sandbox_v1, 50, 2, soon())
        assert first.ends() == 1
        assert "(pipeline start, process" in first.log()
        wait_until(lambda: set(numbers(second)) == set(range(52)), "the points that came later")
        assert second.stop() == 0


def test_a_state_that_is_stored_slowly_does_not_keep_a_source_from_ending(
        start: Start, sandbox_v1: SandboxInflux, sandbox: SandboxIggy) -> None:
    write(sandbox_v1, 0, 10)
    run = start(address=sandbox.address, start=False)
    sandbox.call(sandbox.broker.delay_answers, 0.1)
    run.start("--until-caught-up")
    assert run.ends() == 0
    assert numbers(run) == Counter(range(10))


def test_another_databases_state_is_refused_and_named(
        start: Start, sandbox_v1: SandboxInflux, stream: str) -> None:
    write(sandbox_v1, 0, 10)
    assert start(arguments=["--until-caught-up"]).ends() == 0
    other = start(table='database = "other"\nversion = "v1"')
    assert other.ends() == 1
    assert f"topic {stream}/state of Iggy" in other.log() and ", offset " in other.log()
    assert 'belongs to source "source" of sandbox, not to source "source" of other' in other.log()
    assert "another state_topic, or delete the topic" in other.log()
    assert "Traceback" not in other.log()


def test_a_message_of_another_is_refused_and_named(start: Start, sandbox_v1: SandboxInflux, iggy: RunningIggy,
                                                   stream: str) -> None:
    iggy.create_topic(stream, "state", 1)
    asyncio.run(put(iggy, stream, b'{"temperature": 20}', None))
    run = start()
    assert run.ends() == 1
    assert f"topic {stream}/state of Iggy" in run.log()
    assert "has a message that is not a part of a state, at offset 0" in run.log()


def test_a_damaged_state_is_refused_and_named(iggy: RunningIggy, stream: str) -> None:
    async def scenario() -> None:
        topic = topic_of(iggy, stream)
        await topic.load(NOW)
        await topic.save(state_of(stream, 1))
        content = encode_state(state_of(stream, 12)).replace(b'"m": 12', b'"m": 13')
        (part,) = cut(content, "one", Writer("run", "me"))
        await put(iggy, stream, part.content, part.headers())
        with pytest.raises(StateError, match=rf"{stream}/state .*, offset 2, is damaged \(its checksum is wrong\)"):
            await topic_of(iggy, stream).load(NOW)

    asyncio.run(scenario())


def test_a_large_state_goes_in_parts_and_only_a_whole_one_counts(iggy: RunningIggy, stream: str) -> None:
    large, larger = state_of(stream, 1, 100_000), state_of(stream, 2, 120_000)

    async def scenario() -> None:
        topic = topic_of(iggy, stream)
        assert (await topic.load(NOW)).watermarks == {}
        await topic.save(large)
        assert await topic_of(iggy, stream).load(NOW) == large
        parts = list(cut(encode_state(larger), "torn", Writer("run", "me")))
        assert len(parts) == 4 and all(len(part.content) <= PART_BYTES for part in parts)
        for number, part in enumerate(parts):
            assert await topic_of(iggy, stream).load(NOW) == large, f"before part {number + 1}"
            await put(iggy, stream, part.content, part.headers())
        assert await topic_of(iggy, stream).load(NOW) == larger

    asyncio.run(scenario())


def test_what_a_killed_writer_left_half_is_passed_over(iggy: RunningIggy, stream: str) -> None:
    async def scenario() -> None:
        parts = list(cut(encode_state(state_of(stream, 1, 50_000)), "torn", Writer("dead", "dead")))
        topic = topic_of(iggy, stream)
        await topic.load(NOW)
        await topic.save(state_of(stream, 7))
        for part in parts[:-1]:
            await put(iggy, stream, part.content, part.headers())
        after = topic_of(iggy, stream, "after")
        assert (await after.load(NOW)).watermarks == {"m": 7}
        await after.save(state_of(stream, 8))
        assert (await topic_of(iggy, stream).load(NOW)).watermarks == {"m": 8}
        # And the one that came first sees that it is no longer alone.
        with pytest.raises(StateTaken, match="this one stops"):
            await topic.save(state_of(stream, 9))
        assert (await topic_of(iggy, stream).load(NOW)).watermarks == {"m": 8}

    asyncio.run(scenario())


def test_what_the_first_of_two_still_writes_does_not_stop_the_second(iggy: RunningIggy, stream: str) -> None:
    async def scenario() -> None:
        first, second, third = (topic_of(iggy, stream, run) for run in ("first", "second", "third"))
        await first.load(NOW)
        await first.save(state_of(stream, 1))
        await second.load(NOW)
        late = list(cut(encode_state(state_of(stream, 2)), "late", Writer("first", "first")))
        await put(iggy, stream, late[0].content, late[0].headers())
        await second.save(state_of(stream, 3))
        await put(iggy, stream, late[0].content, late[0].headers())
        await second.save(state_of(stream, 4))
        with pytest.raises(StateTaken):
            await first.save(state_of(stream, 5))
        assert (await topic_of(iggy, stream).load(NOW)).watermarks == {"m": 4}
        # By now the first must have noticed; and one that came later is never overlooked.
        await put(iggy, stream, late[0].content, late[0].headers())
        with pytest.raises(StateTaken):
            await second.save(state_of(stream, 6))
        await third.load(NOW)
        await put(iggy, stream, late[0].content, {**late[0].headers(), "run": "fourth"})
        with pytest.raises(StateTaken):
            await third.save(state_of(stream, 7))

    asyncio.run(scenario())


def test_a_topic_that_was_deleted_meanwhile_is_made_again(iggy: RunningIggy, stream: str) -> None:
    async def scenario() -> None:
        topic = topic_of(iggy, stream)
        await topic.load(NOW)
        await topic.save(state_of(stream, 1))
        connection = IggyConnection(IggyConfig(address=iggy.address))
        await connection.ensure_connected()
        await connection.client.delete_topic(stream, "state")
        await topic.save(state_of(stream, 2))
        assert (await topic_of(iggy, stream).load(NOW)).watermarks == {"m": 2}

    asyncio.run(scenario())


def test_a_topic_of_several_partitions_is_refused(start: Start, iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, "state", 2)
    run = start()
    assert run.ends() == 1
    assert "has 2 partitions; give a state_topic that has one" in run.log()


def test_a_topic_whose_messages_expire_is_refused(start: Start, sandbox: SandboxIggy, stream: str) -> None:
    def make() -> None:
        sandbox.broker.state.new_stream(stream)
        hour = (3_600_000_000).to_bytes(8, "little")
        sandbox.broker.state.new_topic(stream, "state", 1, {"message_expiry": (UINT64, hour)})

    sandbox.call(make)
    run = start(address=sandbox.address)
    assert run.ends() == 1
    assert f"{stream}/state" in run.log() and "deletes messages after 1:00:00, the newest state among them" in run.log()


@pytest.mark.parametrize(("points", "left"), [(0, 0), (100_000, 0), (100_000, 2)])
def test_a_state_that_iggy_has_deleted_is_no_new_begin(sandbox: SandboxIggy, stream: str, points: int,
                                                       left: int) -> None:
    async def scenario() -> None:
        topic = topic_of(sandbox, stream)
        await topic.load(NOW)
        await topic.save(state_of(stream, 1, points))

    asyncio.run(scenario())
    log = sandbox.call(sandbox.broker.state.topic, stream, "state").log(0)
    # Twice, so that a partition whose first state is gone isn't like a new one.
    assert log.current_offset == (7 if points else 1)
    sandbox.call(sandbox.broker.state.expire, stream, "state", 0, log.current_offset + 1 - left)
    with pytest.raises(StateError, match="had a state that was deleted"):
        asyncio.run(topic_of(sandbox, stream).load(NOW))


def test_a_topic_that_was_emptied_is_like_a_new_one_and_that_is_said(iggy: RunningIggy, stream: str) -> None:
    async def scenario() -> None:
        topic = topic_of(iggy, stream)
        await topic.load(NOW)
        assert topic.warnings == ()
        await topic.save(state_of(stream, 1))
        connection = IggyConnection(IggyConfig(address=iggy.address))
        await connection.ensure_connected()
        await connection.client.purge_topic(stream, "state")
        while await connection.read_all(stream, "state"):
            pass
        after = topic_of(iggy, stream)
        assert (await after.load(NOW)).watermarks == {}
        assert [warning for warning in after.warnings if "is empty" in warning]
        # The one that was running writes its state again.
        await topic.save(state_of(stream, 2))
        assert (await after.load(NOW)).watermarks == {"m": 2}
        assert after.warnings == ()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_state_too_large_for_a_topic_that_was_made_is_refused(
        iggy: RunningIggy, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOPIC_OPTIONS, "segment_size", str(1 << 20))
    monkeypatch.setitem(TOPIC_OPTIONS, "max_topic_size", str(4 << 20))

    async def scenario() -> None:
        topic = topic_of(iggy, stream)
        await topic.load(NOW)
        with pytest.raises(StateError, match="needs a topic whose max_topic_size is [0-9,]+ or more; .* is 4,194,304"):
            await topic.save(state_of(stream, 1, 30_000))
        await topic.save(state_of(stream, 1, 20_000))
        assert (await topic_of(iggy, stream).load(NOW)).watermarks == {"m": 1}

    asyncio.run(scenario())


def test_a_topic_that_grows_for_ever_is_said(start: Start, sandbox_v1: SandboxInflux, iggy: RunningIggy,
                                              stream: str) -> None:
    write(sandbox_v1, 0, 1)
    iggy.create_topic(stream, "state", 1)
    run = start(arguments=["--until-caught-up"])
    assert run.ends() == 0
    assert "has no max_topic_size: it grows with every state" in run.log()
    assert "has messages_required_to_save = 1024" in run.log()


def test_iggy_is_waited_for_and_no_state_is_lost(start: Start, sandbox_v1: SandboxInflux, sandbox: SandboxIggy) -> None:
    write(sandbox_v1, 0, 2_000)
    run = start(address=sandbox.address, source="page_size = 50\npages_in_flight = 2", output="messages_per_send = 10")
    run.wait_for(lambda status: status.points >= 200)
    sandbox.call(sandbox.broker.drop_connections)
    run.wait_for_log("nothing is lost")
    run.wait_for(lambda status: status.measurements and status.measurements[0].watermark > FIRST_TIME + 1_999 * 10**9)
    assert run.stop() == 0
    assert "every watermark stored" in run.log()
    assert set(numbers(run)) == set(range(2_000))


def test_the_state_is_text_that_people_can_read(start: Start, sandbox_v1: SandboxInflux) -> None:
    write(sandbox_v1, 0, 10)
    run = start(arguments=["--until-caught-up"])
    assert run.ends() == 0
    last = json.loads(run.messages("state")[-1].payload())
    assert (last["format"], last["version"], last["identity"]["source"]) == ("pipeline-source-state", 1, "source")
    assert os.path.basename(run.config) == "pipeline.toml" and "checksum" in last
