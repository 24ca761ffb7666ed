"""The sandbox broker through the real, unmodified client: what it does, and that a real server does the same.

With IGGY_TEST_SERVER set (see tests/conftest.py) every test here also runs against that server.
"""

import struct

import pytest
from apache_iggy import IggyClient, MaxTopicSize, Partitioning, PollingStrategy, SendMessage, TcpConfig

from pipeline.config.iggy_schema import IggyConfig
from pipeline.iggy.connection import IggyConnection
from tests.support.iggy_calls import (
    DELETE_OFFSET,
    GET_ME,
    GROUP,
    TOPIC,
    connected,
    numbered,
    offset_body,
    payloads,
    poll,
    run,
    send,
    store,
    stored,
)
from tests.support.iggy_servers import RunningIggy


def test_messages_are_polled_as_they_were_sent_batch_borders_or_not(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(iggy)
        for first in range(0, 40, 10):
            await send(client, stream, numbered(first, 10))
        got = await poll(client, stream, PollingStrategy.Offset(7), count=26)
        assert payloads(got) == numbered(7, 26)
        assert [message.offset() for message in got] == list(range(7, 33))
        assert {message.partition_id() for message in got} == {0}

    run(scenario())


def test_first_last_and_next_take_their_place_in_the_log(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(iggy)
        for first in (0, 10):
            await send(client, stream, numbered(first, 10))
        assert payloads(await poll(client, stream, PollingStrategy.First(), count=2)) == numbered(0, 2)
        assert payloads(await poll(client, stream, PollingStrategy.Last(), count=12)) == numbered(8, 12)
        assert payloads(await poll(client, stream, PollingStrategy.Last(), count=50)) == numbered(0, 20)
        for _ in range(2):
            assert payloads(await poll(client, stream, PollingStrategy.Next(), count=3)) == numbered(0, 3)
        await store(client, stream, 4)
        assert payloads(await poll(client, stream, PollingStrategy.Next(), count=3)) == numbered(5, 3)
        assert await poll(client, stream, PollingStrategy.Offset(20)) == []

    run(scenario())


def test_a_poll_by_timestamp_begins_with_the_first_message_since(iggy: RunningIggy,
                                                                                 stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(iggy)
        for first in range(0, 30, 10):
            await send(client, stream, numbered(first, 10))
        times = [message.timestamp() for message in await poll(client, stream, PollingStrategy.First())]
        assert times == sorted(times) and len(set(times)) == 3
        for microseconds in {0, times[0] + 1, *times, times[-1] + 1}:
            expected = next((i for i, t in enumerate(times) if t >= microseconds), len(times))
            got = await poll(client, stream, PollingStrategy.Timestamp(microseconds))
            assert payloads(got) == numbered(expected, 30 - expected)

    run(scenario())


def test_user_headers_and_ids_come_back(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(iggy)
        await send(client, stream, [b"plain"])
        message = SendMessage(b"with headers", user_headers={"site": "north"}, id=77)
        await client.send_messages(stream, TOPIC, Partitioning.partition_id(0), [message])
        plain, other = await poll(client, stream, PollingStrategy.First())
        headers = other.user_headers()
        assert plain.user_headers() is None and headers is not None and len(headers) == 1
        assert (other.payload(), other.id()) == (b"with headers", 77)

    run(scenario())


def test_a_poll_that_commits_moves_the_stored_offset_only_forward(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(iggy)
        await send(client, stream, numbered(0, 10))
        assert await stored(client, stream) is None
        await poll(client, stream, PollingStrategy.Offset(5), count=1, commit=True)
        assert await stored(client, stream) == 5
        await poll(client, stream, PollingStrategy.Offset(2), count=1, commit=True)
        assert await stored(client, stream) == 5
        await poll(client, stream, PollingStrategy.Offset(50), count=1, commit=True)
        assert await stored(client, stream) == 5

    run(scenario())


@pytest.mark.parametrize("acknowledged", [0, 1])
def test_an_offset_is_stored_by_any_connection_also_backwards_and_deleted(iggy: RunningIggy, stream: str,
                                                                          acknowledged: int) -> None:
    iggy.create_topic(stream, TOPIC, 2)

    async def scenario() -> None:
        client, other = await connected(iggy), await connected(iggy)
        await send(client, stream, numbered(0, 10), partition=1)
        for offset in (8, 3):
            await store(other, stream, offset, partition=1, acknowledged=acknowledged)
            assert await stored(client, stream, partition=1) == offset
        assert await stored(client, stream, partition=0) is None
        delete = offset_body(stream, 1, "me", 1, bytes((acknowledged,)))
        await client.send_binary_request(DELETE_OFFSET, delete)
        assert await stored(client, stream, partition=1) is None
        with pytest.raises(RuntimeError):
            await client.send_binary_request(DELETE_OFFSET, delete)

    run(scenario())


def test_an_offset_beyond_the_end_of_the_log_is_refused(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(iggy)
        with pytest.raises(RuntimeError, match="(?i)invalid offset"):
            await store(client, stream, 0)
        await send(client, stream, numbered(0, 10))
        await store(client, stream, 9)
        with pytest.raises(RuntimeError, match="(?i)invalid offset"):
            await store(client, stream, 10)
        assert await stored(client, stream) == 9

    run(scenario())


def test_what_is_not_there_is_named_or_absent(iggy: RunningIggy, stream: str) -> None:
    async def scenario() -> None:
        client = await connected(iggy)
        assert await client.get_stream(stream) is None
        assert await client.get_topic(stream, TOPIC) is None
        iggy.create_topic(stream, "other", 1)
        assert await client.get_topic(stream, TOPIC) is None
        with pytest.raises(RuntimeError, match="(?i)not found"):
            await send(client, stream, [b"lost"])
        with pytest.raises(RuntimeError, match="(?i)topic.*not found"):
            await poll(client, stream, PollingStrategy.First())
        with pytest.raises(RuntimeError, match="(?i)stream.*not found"):
            await poll(client, f"{stream}-2", PollingStrategy.First())
        iggy.create_topic(stream, TOPIC, 1)
        with pytest.raises(RuntimeError, match="(?i)partition.*not found"):
            await poll(client, stream, PollingStrategy.First(), partition=1)
        assert await client.get_consumer_group(stream, TOPIC, GROUP) is None
        with pytest.raises(RuntimeError, match="(?i)not found"):
            await client.join_consumer_group(stream, TOPIC, GROUP)

    run(scenario())


def test_a_wrong_password_is_refused_and_the_right_one_works_after_it(iggy: RunningIggy) -> None:
    async def scenario() -> None:
        client = IggyClient(TcpConfig(server_address=iggy.address))
        await client.connect()
        await client.ping()
        with pytest.raises(RuntimeError, match="(?i)unauthenticated"):
            await client.get_streams()
        with pytest.raises(RuntimeError, match="(?i)credentials"):
            await client.login_user("iggy", "wrong")
        await client.login_user("iggy", "iggy")
        await client.get_streams()
        await client.logout_user()
        with pytest.raises(RuntimeError, match="(?i)unauthenticated"):
            await client.get_streams()

    run(scenario())


def test_streams_and_topics_are_listed_made_once_and_deleted(iggy: RunningIggy, stream: str) -> None:
    async def scenario() -> None:
        client = await connected(iggy)
        await client.create_stream(stream)
        with pytest.raises(RuntimeError, match="(?i)already exists"):
            await client.create_stream(stream)
        for topic in (TOPIC, "other"):
            iggy.create_topic(stream, topic, 2)
        assert stream in [found.name for found in await client.get_streams()]
        assert [topic.name for topic in await client.get_topics(stream)] == [TOPIC, "other"]
        details = await client.get_topic(stream, TOPIC)
        assert details is not None and (details.partitions_count, details.messages_count) == (2, 0)
        await client.delete_topic(stream, TOPIC)
        assert [topic.name for topic in await client.get_topics(stream)] == ["other"]
        await client.delete_stream(stream)
        assert await client.get_stream(stream) is None
        with pytest.raises(RuntimeError, match="(?i)not found"):
            await client.delete_stream(stream)

    run(scenario())


def test_a_topic_counts_its_messages_by_partition(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 2)

    async def scenario() -> None:
        client = await connected(iggy)
        await send(client, stream, numbered(0, 10), partition=1)
        details = await client.get_topic(stream, TOPIC)
        assert details is not None and details.messages_count == 10
        assert [(p.id, p.current_offset, p.messages_count) for p in details.partitions] == [(0, 0, 0), (1, 9, 10)]
        assert details.size == details.partitions[1].size > 10 * 48

    run(scenario())


def test_partitions_are_added_and_the_last_ones_deleted(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        client = await connected(iggy)
        await client.create_partitions(stream, TOPIC, 2)
        await send(client, stream, numbered(0, 3), partition=2)
        assert payloads(await poll(client, stream, PollingStrategy.First(), partition=2)) == numbered(0, 3)
        await client.delete_partitions(stream, TOPIC, 1)
        with pytest.raises(RuntimeError, match="(?i)partition.*not found"):
            await poll(client, stream, PollingStrategy.First(), partition=2)
        with pytest.raises(RuntimeError):
            await client.delete_partitions(stream, TOPIC, 3)
        details = await client.get_topic(stream, TOPIC)
        assert details is not None and details.partitions_count == 2

    run(scenario())


def test_balanced_messages_go_to_all_partitions_and_those_of_a_key_to_one(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 3)

    async def scenario() -> None:
        client = await connected(iggy)
        for _ in range(3):
            await client.send_messages(stream, TOPIC, Partitioning.balanced(), [SendMessage(b"balanced")])
        for _ in range(2):
            await client.send_messages(stream, TOPIC, Partitioning.messages_key("device-7"), [SendMessage(b"keyed")])
        found = [payloads(await poll(client, stream, PollingStrategy.First(), partition=n)) for n in range(3)]
        assert all(b"balanced" in partition for partition in found)
        assert sorted(partition.count(b"keyed") for partition in found) == [0, 0, 2]

    run(scenario())


def test_statistics_and_the_connection_describe_themselves(iggy: RunningIggy, stream: str) -> None:
    iggy.create_topic(stream, TOPIC, 2)

    async def scenario() -> None:
        client = await connected(iggy)
        await send(client, stream, numbered(0, 10))
        await client.create_consumer_group(stream, TOPIC, GROUP)
        await client.join_consumer_group(stream, TOPIC, GROUP)
        stats = await client.get_stats()
        assert stats.iggy_server_version == "0.9.0-edge.5"
        assert stats.messages_count >= 10 and stats.partitions_count >= 2 and stats.consumer_groups_count >= 1
        assert stats.process_id > 0 and stats.total_memory > stats.memory_usage > 0
        me = await client.send_binary_request(GET_ME, b"")
        length = struct.unpack_from("<I", me, 9)[0]
        assert me[13:13 + length].startswith(b"127.0.0.1:")
        assert struct.unpack_from("<I", me, 13 + length)[0] == 1 and len(me) == 17 + length + 12

    run(scenario())


def test_the_options_of_topics_are_told_and_are_taken_as_texts(iggy: RunningIggy, stream: str) -> None:
    async def scenario() -> None:
        connection = IggyConnection(IggyConfig(address=iggy.address))
        await connection.ensure_connected()
        known = {spec.key for spec in await connection.client.describe_options("topic")}
        options = {"segment_size": "16777216", "max_topic_size": "1073741824", "messages_required_to_save": "1",
                   "enforce_fsync": "true"}
        assert set(options) <= known
        await connection.make_topic(stream, TOPIC, 1, {**options, "no_such_option": "1"})
        details = await connection.full_details(stream, TOPIC)
        assert details is not None and isinstance(details.max_topic_size, MaxTopicSize.Custom)
        assert details.max_topic_size.bytes == 1 << 30
        await connection.client.delete_stream(stream)

    run(scenario())
