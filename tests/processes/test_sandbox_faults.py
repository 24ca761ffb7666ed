"""Each fault of the sandbox broker, as the real, unmodified client meets it."""

import asyncio
import time

import pytest
from apache_iggy import AutoLogin, IggyClient, PollingStrategy, TcpConfig, TcpReconnectionConfig

from pipeline.testbed.sandbox.iggy.control import handle_control
from tests.support.iggy_calls import (
    GROUP,
    TOPIC,
    WORKERS,
    connected,
    numbered,
    owners,
    payloads,
    poll,
    run,
    send,
    store,
    stored,
    until,
)
from tests.support.iggy_servers import SandboxIggy

#: How long an answer is watched for not coming, seconds.
QUIET_SECONDS = 0.3


def impatient(sandbox: SandboxIggy) -> IggyClient:
    """A client that gives up at the first connection that fails."""
    return IggyClient(TcpConfig(server_address=sandbox.address, reconnection=TcpReconnectionConfig(enabled=False),
                                auto_login=AutoLogin.username_password("iggy", "iggy")))


async def polled_again(client: IggyClient, stream: str, expected: list[bytes]) -> None:
    """Returns once the client, reconnecting by itself, polls just what is expected from the log's beginning."""
    async def there() -> bool:
        try:
            got = await asyncio.wait_for(poll(client, stream, PollingStrategy.First(), count=1000), 10)
        except (RuntimeError, TimeoutError):
            return False
        assert payloads(got) == expected
        return True

    await until(there, "the client to be back")


def test_a_refused_connection_is_refused_until_the_broker_takes_them_again(sandbox: SandboxIggy) -> None:
    async def scenario() -> None:
        old = await connected(sandbox)
        sandbox.call(sandbox.broker.refuse_connections, True)
        with pytest.raises(RuntimeError):
            await impatient(sandbox).connect()
        await old.ping()
        sandbox.call(sandbox.broker.refuse_connections, False)
        client = impatient(sandbox)
        await client.connect()
        await client.get_streams()

    run(scenario())


def test_a_client_comes_back_after_its_connection_was_dropped(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(sandbox)
        await send(client, stream, numbered(0, 10))
        assert sandbox.call(sandbox.broker.drop_connections) == 1
        await polled_again(client, stream, numbered(0, 10))

    run(scenario())


def test_answers_come_late_while_they_are_delayed(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(sandbox)
        sandbox.call(sandbox.broker.delay_answers, QUIET_SECONDS)
        before = time.monotonic()
        await send(client, stream, numbered(0, 10))
        assert payloads(await poll(client, stream, PollingStrategy.First())) == numbered(0, 10)
        assert time.monotonic() - before >= 2 * QUIET_SECONDS - 0.01
        # It would take ten minutes if answers were still delayed.
        sandbox.call(sandbox.broker.delay_answers, 600.0)
        sandbox.call(sandbox.broker.delay_answers, 0.0)
        await asyncio.wait_for(client.get_streams(), 60)

    run(scenario())


def test_a_hanging_broker_answers_when_it_is_told_to_go_on(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(sandbox)
        await send(client, stream, numbered(0, 10))
        sandbox.call(sandbox.broker.hang)
        asked = asyncio.ensure_future(poll(client, stream, PollingStrategy.First()))
        done, _ = await asyncio.wait({asked}, timeout=QUIET_SECONDS)
        assert not done
        sandbox.call(sandbox.broker.resume)
        assert payloads(await asked) == numbered(0, 10)

    run(scenario())


def test_a_restart_forgets_sessions_and_keeps_data_and_offsets(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    address = sandbox.address

    async def scenario() -> None:
        client = await connected(sandbox)
        await send(client, stream, numbered(0, 10))
        await store(client, stream, 4)
        await client.create_consumer_group(stream, TOPIC, GROUP)
        await client.join_consumer_group(stream, TOPIC, GROUP)
        sandbox.call(sandbox.broker.restart, 60.0)
        assert not sandbox.broker.listening
        with pytest.raises(RuntimeError):
            await impatient(sandbox).connect()
        sandbox.call(sandbox.broker.refuse_connections, False)
        await polled_again(client, stream, numbered(0, 10))
        assert sandbox.address == address
        assert await stored(client, stream) == 4
        assert await owners(client, stream) == []

    run(scenario())


def test_a_restart_with_ghosts_leaves_the_dead_member_in_the_group(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 2)

    async def scenario() -> None:
        client = await connected(sandbox)
        await client.create_consumer_group(stream, TOPIC, GROUP)
        await client.join_consumer_group(stream, TOPIC, GROUP)
        sandbox.call(sandbox.broker.restart, 0.1, True)
        await polled_again(client, stream, [])
        assert await owners(client, stream) == [[0, 1]]
        with pytest.raises(RuntimeError, match="(?i)member.*not found"):
            await poll(client, stream, PollingStrategy.Next(), partition=None, consumer=WORKERS)
        await client.join_consumer_group(stream, TOPIC, GROUP)
        assert await owners(client, stream) == [[0], [1]]

    run(scenario())


@pytest.mark.parametrize("lost", [3, 10, 13, 20])
def test_a_crash_loses_the_last_messages_and_new_ones_take_their_offsets(sandbox: SandboxIggy, stream: str,
                                                                         lost: int) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    left = 20 - lost

    async def scenario() -> None:
        client = await connected(sandbox)
        for first in (0, 10):
            await send(client, stream, numbered(first, 10))
        await store(client, stream, 19)
        sandbox.call(sandbox.broker.crash, stream, TOPIC, 0, lost)
        await polled_again(client, stream, numbered(0, left))
        assert await poll(client, stream, PollingStrategy.Offset(20)) == []
        assert await stored(client, stream) == max(0, left - 1)
        details = await client.get_topic(stream, TOPIC)
        assert details is not None and details.messages_count == left
        assert details.partitions[0].current_offset == max(0, left - 1)
        await send(client, stream, [b"new"])
        got = await poll(client, stream, PollingStrategy.Offset(left))
        assert [(message.offset(), message.payload()) for message in got] == [(left, b"new")]

    run(scenario())


def test_expired_messages_are_skipped_by_every_way_to_poll(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(sandbox)
        for first in (0, 10):
            await send(client, stream, numbered(first, 10))
        sandbox.call(sandbox.broker.state.expire, stream, TOPIC, 0, 13)
        strategies = [PollingStrategy.Offset(2), PollingStrategy.First(), PollingStrategy.Next(),
                      PollingStrategy.Timestamp(0)]
        for strategy in strategies:
            got = await poll(client, stream, strategy, count=3)
            assert [message.offset() for message in got] == [13, 14, 15]
            assert payloads(got) == numbered(13, 3)
        assert payloads(await poll(client, stream, PollingStrategy.Last(), count=100)) == numbered(13, 7)
        details = await client.get_topic(stream, TOPIC)
        assert details is not None and (details.messages_count, details.partitions[0].current_offset) == (7, 19)
        sandbox.call(sandbox.broker.state.expire, stream, TOPIC, 0, 1000)
        assert await poll(client, stream, PollingStrategy.First()) == []
        await send(client, stream, [b"after"])
        assert [message.offset() for message in await poll(client, stream, PollingStrategy.Offset(0))] == [20]

    run(scenario())


def test_a_recreated_topic_is_empty_and_has_no_offsets_or_groups(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(sandbox)
        await send(client, stream, numbered(0, 10))
        await store(client, stream, 4)
        await client.create_consumer_group(stream, TOPIC, GROUP)
        sandbox.call(sandbox.broker.state.recreate_topic, stream, TOPIC, 2)
        assert await stored(client, stream) is None
        assert await poll(client, stream, PollingStrategy.First()) == []
        assert await client.get_consumer_group(stream, TOPIC, GROUP) is None
        await send(client, stream, [b"again"], partition=1)
        assert [message.offset() for message in await poll(client, stream, PollingStrategy.First(), partition=1)] == [0]

    run(scenario())


def test_partitions_are_added_while_a_group_reads(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(sandbox)
        await client.create_consumer_group(stream, TOPIC, GROUP)
        await client.join_consumer_group(stream, TOPIC, GROUP)
        sandbox.call(sandbox.broker.state.add_partitions, stream, TOPIC, 2)
        assert await owners(client, stream) == [[0, 1, 2]]
        await send(client, stream, numbered(0, 3), partition=2)

    run(scenario())


def test_a_client_survives_a_poll_reply_cut_in_the_middle(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(sandbox)
        await send(client, stream, numbered(0, 500))
        sandbox.call(sandbox.broker.cut_polls, 1)
        await polled_again(client, stream, numbered(0, 500))
        assert sandbox.broker.state.polls_to_cut == 0

    run(scenario())


def test_every_fault_can_be_ordered_by_another_process(sandbox: SandboxIggy, stream: str) -> None:
    def order(**command: object) -> dict[str, object]:
        state: dict[str, object] = sandbox.call(handle_control, sandbox.broker, command)
        return state

    async def scenario() -> None:
        assert "error" not in order(do="create_topic", stream=stream, topic=TOPIC, partitions=1)
        client = await connected(sandbox)
        await send(client, stream, numbered(0, 10))
        await store(client, stream, 4)
        where = {"stream": stream, "topic": TOPIC}
        assert order(do="expire", **where, partition=0, before=2)["topics"] == [
            {**where, "partitions": [{"start_offset": 2, "next_offset": 10, "offsets": {"me": 4}}]}]
        order(do="crash", **where, partition=0, lose=3, seconds=0)
        await polled_again(client, stream, numbered(2, 5))
        assert order(do="delay_answers", seconds=0.1)["delay_seconds"] == 0.1
        order(do="delay_answers", seconds=0)
        assert order(do="hang")["hung"] is True
        assert order(do="resume")["hung"] is False
        assert order(do="refuse_connections")["listening"] is False
        assert order(do="refuse_connections", refuse=False)["listening"] is True
        order(do="cut_polls")
        await polled_again(client, stream, numbered(2, 5))
        order(do="drop_connections")
        await polled_again(client, stream, numbered(2, 5))
        assert order(do="restart", seconds=0.1)["listening"] is False
        await polled_again(client, stream, numbered(2, 5))
        order(do="add_partitions", **where, count=2)
        order(do="recreate_topic", **where)
        empty = {"start_offset": 0, "next_offset": 0, "offsets": {}}
        assert order(do="status")["topics"] == [{**where, "partitions": [empty] * 3}]

    run(scenario())


def test_an_order_that_makes_no_sense_is_answered_in_words(sandbox: SandboxIggy) -> None:
    def error(**command: object) -> object:
        return sandbox.call(handle_control, sandbox.broker, command).get("error")

    assert "explode" in str(error(do="explode"))
    assert "seconds" in str(error(do="delay_answers"))
    assert "second" in str(error(do="restart", second=1))
    assert ">= 0" in str(error(do="restart", seconds=-1))
    assert error(do="expire", stream="none", topic="t", partition=0, before=1) == "no such stream"
