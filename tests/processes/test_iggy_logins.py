"""Logins at Iggy: refused and renewed while the pipeline runs, with the rights of a user, on another server."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from apache_iggy import TopicPermissions

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import Config, Subscription, TopicConfig
from pipeline.dead_letters.stores import check_stores
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyAuthenticationFailed, IggyForbidden
from pipeline.iggy.retry import check_iggy
from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_clients import delete_token, make_token, make_topics, make_user
from tests.support.iggy_servers import RunningIggy, SandboxIggy, user_of
from tests.support.relay import relay_to
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, read_topic, send

Start = Callable[..., Sink]
LOGGER = logging.getLogger("test")


def test_a_pipeline_pauses_while_its_token_is_refused_and_goes_on_with_a_new_one(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, tmp_path: Path) -> None:
    root, path = IggyConfig(address=sandbox.address), tmp_path / "token"
    make_topics(root, stream, TOPIC)
    path.write_text(make_token(root, "first"))
    path.chmod(0o600)
    send(sandbox.address, stream, [message(n) for n in range(100)])
    sink = start_sink(sandbox.address, stream, influxdb, iggy_options=f'token_file = "{path}"')
    sink.settles(100)
    delete_token(root, "first")
    sandbox.call(sandbox.broker.drop_connections)
    sink.wait_for_log(f"refused the token of iggy.token_file {path}")
    send(sandbox.address, stream, [message(n) for n in range(100, 200)])
    path.write_text(make_token(root, "second"))
    sink.settles(200)
    assert numbers(influxdb.points()) == list(range(200))
    assert sink.stop() == 0


def test_the_right_to_poll_and_to_send_dead_letters_is_enough(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    root = IggyConfig(address=iggy.address)
    iggy.create_topic(stream, TOPIC, 3)
    iggy.create_topic(stream, "influxdb-dlq", 2)
    name = user_of(stream)
    make_user(root, name, "its-password", stream, {TOPIC: TopicPermissions(poll_messages=True),
                                                   "influxdb-dlq": TopicPermissions(send_messages=True)})
    send(iggy.address, stream, [message(n) for n in range(600)], 3, at_once=100)
    sink = start_sink(iggy.address, stream, influxdb, iggy_options=f'username = "{name}"\npassword = "its-password"')
    sink.settles(600)
    send(iggy.address, stream, [b"{", *[message(n) for n in range(600, 700)]], 3)
    sink.settles(701)
    assert numbers(influxdb.points()) == list(range(700))
    assert [json.loads(letter)["reason"] for letter in read_topic(iggy.address, stream, "influxdb-dlq")] == ["not_json"]
    assert sink.stop() == 0
    assert f"may poll {stream}/{TOPIC}, but lacks the right read_topic" in sink.log()
    assert "its-password" not in sink.log()


@pytest.mark.parametrize(("rights", "group", "lacking"), [
    (TopicPermissions(send_messages=True), False, "read_topic (or poll_messages) on STREAM/TOPIC"),
    (TopicPermissions(poll_messages=True), True, "read_topic on STREAM/TOPIC, which consumer groups need"),
    (TopicPermissions(poll_messages=True), False, "send_messages on STREAM/influxdb-dlq"),
])
def test_what_a_user_lacks_is_said_at_the_start_with_its_name(iggy: RunningIggy, stream: str, rights: TopicPermissions,
                                                              group: bool, lacking: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    name = user_of(stream)
    make_user(IggyConfig(address=iggy.address), name, "its-password", stream, {TOPIC: rights})
    config = Config(iggy=IggyConfig(address=iggy.address, username=name, password="its-password"),
                    topics=(TopicConfig(stream=stream, topic=TOPIC),))
    topic = Subscription(0, stream, TOPIC, "earliest", "us", group)

    async def checks() -> None:
        await check_iggy(config.iggy, (topic,), True)
        await check_stores(config, LOGGER)

    with pytest.raises(IggyForbidden) as refused:
        asyncio.run(checks())
    assert "lacks the right " + lacking.replace("STREAM", stream).replace("TOPIC", TOPIC) in str(refused.value)


def test_every_topic_and_pattern_that_may_not_be_read_is_named(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    sandbox.create_topic(stream, "other", 1)
    make_user(IggyConfig(address=sandbox.address), "reader", "its-password", stream,
              {TOPIC: TopicPermissions(poll_messages=True)})
    config = IggyConfig(address=sandbox.address, username="reader", password="its-password")
    topics = Config(topics=(TopicConfig(stream=stream, topic=TOPIC), TopicConfig(stream=stream, topic="other"),
                            TopicConfig(stream=stream, topic="sensors-*"), TopicConfig(stream="*", topic="a*")))
    with pytest.raises(IggyForbidden) as refused:
        asyncio.run(check_iggy(config, topics.subscriptions(), all_needed=False))
    for right in (f"poll_messages) on {stream}/other;", f"read_stream on the stream {stream};", "read_streams;"):
        assert right in str(refused.value)
    assert f"{stream}/{TOPIC}" not in str(refused.value)


def test_a_topic_that_may_not_be_made_is_named_with_the_right(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    make_user(IggyConfig(address=sandbox.address), "sender", "its-password", stream,
              {TOPIC: TopicPermissions(send_messages=True)})
    connection = IggyConnection(IggyConfig(address=sandbox.address, username="sender", password="its-password"))

    async def make(stream: str) -> None:
        await connection.ensure_connected()
        await connection.make_topic(stream, "new")

    for where, right in ((stream, f"manage_topics on the stream {stream}"), ("another", "manage_streams")):
        with pytest.raises(IggyForbidden, match=f"user sender lacks the right {right}"):
            asyncio.run(make(where))


def test_the_next_server_is_used_when_one_is_lost(sandbox: SandboxIggy, stream: str) -> None:
    sandbox.create_topic(stream, TOPIC, 1)

    async def scenario() -> None:
        with relay_to(sandbox.address) as second:
            with relay_to(sandbox.address) as first:
                connection = IggyConnection(IggyConfig(addresses=("127.0.0.1:1", first, second)))
                await connection.ensure_connected()
                assert connection.address == first
            while connection.address == first:
                try:
                    await connection.ensure_connected()
                    await connection.partitions(stream, TOPIC)
                except Exception:
                    assert connection.address == first
            assert (connection.address, connection.connections) == (second, 2)

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_refused_login_is_not_repeated_until_it_changes(sandbox: SandboxIggy, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("wrong-password")
    connection = IggyConnection(IggyConfig(address=sandbox.address, password_file=str(path)))

    async def scenario() -> None:
        for _ in range(5):
            with pytest.raises(IggyAuthenticationFailed, match=f"password of iggy.password_file {path}"):
                await connection.connect()
        before = sandbox.broker.state.sessions_so_far
        assert before == 1
        path.write_text("iggy")
        await connection.connect()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    wait_until(lambda: connection.is_connected, "the login")
