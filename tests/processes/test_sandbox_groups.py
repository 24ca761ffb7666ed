"""Consumer groups of the sandbox broker through the real client, and that a real server's behave the same.

With IGGY_TEST_SERVER set (see tests/conftest.py) all but the test of the time-out also run against that server.
"""

import asyncio
import signal
import subprocess
import sys

import pytest
from apache_iggy import IggyClient, PollingStrategy

from tests.support.iggy_calls import (
    GROUP,
    SOON_SECONDS,
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
from tests.support.iggy_servers import RunningIggy, running_sandbox

JOIN_AND_WAIT = """
import asyncio, sys
from apache_iggy import AutoLogin, IggyClient, TcpConfig

async def main(address, stream, topic, group):
    login = AutoLogin.username_password("iggy", "iggy")
    client = IggyClient(TcpConfig(server_address=address, auto_login=login))
    await client.connect()
    await client.join_consumer_group(stream, topic, group)
    print("joined", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_group_member_polls_its_partitions_in_turn(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 3)

    async def scenario() -> None:
        client = await connected(iggy)
        for partition in range(3):
            await send(client, stream, numbered(partition, 1), partition)
        await client.create_consumer_group(stream, TOPIC, GROUP)
        await client.join_consumer_group(stream, TOPIC, GROUP)
        polls = [await poll(client, stream, PollingStrategy.Next(), partition=None, consumer=WORKERS, commit=True)
                 for _ in range(3)]
        assert sorted(message.partition_id() for got in polls for message in got) == [0, 1, 2]
        again = [await poll(client, stream, PollingStrategy.Next(), partition=None, consumer=WORKERS) for _ in range(3)]
        assert again == [[], [], []]
        first = await poll(client, stream, PollingStrategy.Offset(0), partition=2, consumer=WORKERS)
        assert payloads(first) == numbered(2, 1)

    run(scenario())


def test_a_stranger_polls_nothing_of_a_group_and_may_not_store_for_it(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        member, stranger = await connected(iggy), await connected(iggy)
        await send(member, stream, numbered(0, 3))
        await member.create_consumer_group(stream, TOPIC, GROUP)
        await member.join_consumer_group(stream, TOPIC, GROUP)
        assert await poll(stranger, stream, PollingStrategy.First(), consumer=WORKERS) == []
        with pytest.raises(RuntimeError, match="(?i)not found"):
            await store(stranger, stream, 1, kind=2, consumer=GROUP)
        await store(member, stream, 1, kind=2, consumer=GROUP)
        assert await stored(stranger, stream, kind=2, consumer=GROUP) == 1
        with pytest.raises(RuntimeError, match="(?i)not found"):
            await stranger.leave_consumer_group(stream, TOPIC, GROUP)

    run(scenario())


def test_a_partition_that_nobody_has_polled_moves_at_once(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 4)

    async def scenario() -> None:
        first, second = await connected(iggy), await connected(iggy)
        await first.create_consumer_group(stream, TOPIC, GROUP)
        await first.join_consumer_group(stream, TOPIC, GROUP)
        assert await owners(first, stream) == [[0, 1, 2, 3]]
        await second.join_consumer_group(stream, TOPIC, GROUP)
        assert await owners(first, stream) == [[0, 1], [2, 3]]

    run(scenario())


async def two_members(iggy: RunningIggy, stream: str) -> tuple[IggyClient, IggyClient]:
    """Two members of a group of two partitions, the second joined while the first was in the middle of both."""
    first, second = await connected(iggy), await connected(iggy)
    for partition in range(2):
        await send(first, stream, numbered(0, 10), partition)
    await first.create_consumer_group(stream, TOPIC, GROUP)
    await first.join_consumer_group(stream, TOPIC, GROUP)
    for partition in range(2):
        assert await poll(first, stream, PollingStrategy.Offset(0), count=5, partition=partition, consumer=WORKERS)
    await second.join_consumer_group(stream, TOPIC, GROUP)
    return first, second


def test_a_polled_partition_is_pending_until_its_old_owner_has_committed(iggy: RunningIggy,
                                                                                  stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 2)

    async def scenario() -> None:
        first, second = await two_members(iggy, stream)
        assert await owners(first, stream) == [[0, 1], []]
        for member in (first, second):
            assert await poll(member, stream, PollingStrategy.Offset(0), partition=1, consumer=WORKERS) == []
        assert await poll(first, stream, PollingStrategy.Offset(0), partition=0, consumer=WORKERS)
        await store(first, stream, 3, partition=1, kind=2, consumer=GROUP)
        assert await owners(first, stream) == [[0, 1], []]
        await store(first, stream, 4, partition=1, kind=2, consumer=GROUP)

        async def handed_over() -> bool:
            return await owners(first, stream) == [[0], [1]]

        await until(handed_over, "the partition's hand-over")
        assert await poll(first, stream, PollingStrategy.Offset(0), partition=1, consumer=WORKERS) == []
        got = await poll(second, stream, PollingStrategy.Next(), partition=None, consumer=WORKERS)
        assert payloads(got) == numbered(5, 5) and {message.partition_id() for message in got} == {1}
        with pytest.raises(RuntimeError, match="(?i)not found"):
            await store(first, stream, 4, partition=1, kind=2, consumer=GROUP)

    run(scenario())


def test_a_member_that_leaves_hands_its_partitions_over_at_once(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 2)

    async def scenario() -> None:
        first, second = await two_members(iggy, stream)
        await first.leave_consumer_group(stream, TOPIC, GROUP)
        assert await owners(second, stream) == [[0, 1]]
        assert await poll(second, stream, PollingStrategy.Next(), partition=0, consumer=WORKERS)
        await second.delete_consumer_group(stream, TOPIC, GROUP)
        assert await second.get_consumer_groups(stream, TOPIC) == []

    run(scenario())


def test_a_member_that_dies_hands_its_partitions_over_at_once(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 2)

    async def scenario() -> None:
        client = await connected(iggy)
        await client.create_consumer_group(stream, TOPIC, GROUP)
        other = subprocess.Popen([sys.executable, "-c", JOIN_AND_WAIT, iggy.address, stream, TOPIC, GROUP],
                                 stdout=subprocess.PIPE)
        try:
            assert other.stdout is not None
            assert await asyncio.to_thread(other.stdout.readline) == b"joined\n"
            await client.join_consumer_group(stream, TOPIC, GROUP)
            assert len(await owners(client, stream)) == 2
        finally:
            other.kill()
            other.wait()

        async def alone() -> bool:
            return await owners(client, stream) == [[0, 1]]

        await until(alone, "the hand-over of a dead member's partition")

    run(scenario())


def test_a_member_of_which_nothing_is_heard_is_put_out_of_the_group() -> None:
    with running_sandbox(heartbeat_seconds=1.0) as iggy:
        iggy.create_topic("silent", TOPIC, 2)

        async def scenario() -> None:
            client = await connected(iggy)
            await client.create_consumer_group("silent", TOPIC, GROUP)
            other = subprocess.Popen([sys.executable, "-c", JOIN_AND_WAIT, iggy.address, "silent", TOPIC, GROUP],
                                     stdout=subprocess.PIPE)
            try:
                assert other.stdout is not None
                assert await asyncio.to_thread(other.stdout.readline) == b"joined\n"
                # Its host is gone as far as anybody can tell: the connection stays, without a word.
                other.send_signal(signal.SIGSTOP)

                async def alone() -> bool:
                    return await owners(client, "silent") == []

                await until(alone, "the end of the silent member")
            finally:
                other.kill()
                other.wait()

        run(scenario())


def test_added_partitions_are_dealt_out_to_the_group(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        first, second = await connected(iggy), await connected(iggy)
        await first.create_consumer_group(stream, TOPIC, GROUP)
        await first.join_consumer_group(stream, TOPIC, GROUP)
        await second.join_consumer_group(stream, TOPIC, GROUP)
        assert await owners(first, stream) == [[0], []]
        await first.create_partitions(stream, TOPIC, 2)
        assert await owners(first, stream) == [[0, 2], [1]]

    run(scenario())


def test_an_iggy_consumer_reads_a_group_to_its_end(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 2)

    async def scenario() -> None:
        client = await connected(iggy)
        for partition in range(2):
            await send(client, stream, numbered(10 * partition, 10), partition)
        consumer = await client.consumer_group(GROUP, stream, TOPIC, batch_length=7)
        seen: set[bytes] = set()

        async def read() -> None:
            async for message in consumer.iter_messages():
                seen.add(message.payload())
                if len(seen) == 20:
                    return

        await asyncio.wait_for(read(), SOON_SECONDS)
        assert seen == set(numbered(0, 20))

    run(scenario())


def test_a_pending_partition_is_handed_over_when_the_time_is_up(stream: str) -> None:
    with running_sandbox() as iggy:
        iggy.create_topic(stream, TOPIC, 2)

        async def scenario() -> None:
            first, second = await two_members(iggy, stream)
            assert await owners(first, stream) == [[0, 1], []]
            iggy.broker.state.rebalancing_timeout = 0.0

            async def handed_over() -> bool:
                return await owners(first, stream) == [[0], [1]]

            await until(handed_over, "the end of the rebalancing timeout")
            got = await poll(second, stream, PollingStrategy.Next(), partition=1, consumer=WORKERS)
            assert payloads(got) == numbered(0, 10)

        run(scenario())
