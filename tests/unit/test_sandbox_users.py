"""The sandbox broker's users, made by its control: what they may do, and their tokens."""

import asyncio
from typing import Any

import pytest

from pipeline.testbed.sandbox.iggy.control import handle_control
from pipeline.testbed.sandbox.iggy.server import Broker
from pipeline.testbed.sandbox.iggy.users import (
    ACTIONS,
    GLOBAL,
    STREAM,
    TOPIC,
    User,
    encode_permissions,
    read_permissions,
)


def told(broker: Broker, **command: Any) -> dict[str, object]:
    """The answer to one command."""
    return asyncio.run(handle_control(broker, command))


@pytest.fixture
def broker() -> Broker:
    """One with a topic."""
    broker = Broker()
    told(broker, do="create_topic", stream="telemetry", topic="sensors")
    return broker


def test_a_user_may_do_what_is_granted_and_nothing_else(broker: Broker) -> None:
    answer = told(broker, do="create_user", name="pump", password="p", grants=[
        "poll_messages telemetry/sensors", "send_messages telemetry", "read_servers"])
    assert "error" not in answer
    user = broker.state.users.get("pump")
    assert user.may("poll_messages", 0, 0) and user.may("send_messages", 0, 7) and user.may("read_servers")
    assert not any((user.may("poll_messages", 0, 1), user.may("poll_messages", 1, 0), user.may("read_topic", 0, 0),
                    user.may("send_messages", 1, 0), user.may("manage_users"), user.may("read_streams")))
    assert read_permissions(user.permissions.encoded) == user.permissions


@pytest.mark.parametrize(("grant", "error"), [
    ("fly", "no such right"), ("read_servers telemetry", "no such right"), ("read_streams telemetry/sensors", "no"),
    ("poll_messages nowhere", "no such stream"), ("poll_messages telemetry/nothing", "no such topic")])
def test_a_wrong_grant_is_refused(broker: Broker, grant: str, error: str) -> None:
    assert error in str(told(broker, do="create_user", name="pump", password="p", grants=[grant])["error"])


def test_a_token_logs_in_until_it_is_deleted_or_expires(broker: Broker) -> None:
    users = broker.state.users
    token = str(told(broker, do="create_token", user="iggy", name="t")["token"])
    assert users.by_token(token, 2**62) is users.get("iggy")
    assert "there is such a token" in str(told(broker, do="create_token", user="iggy", name="t")["error"])
    short = str(told(broker, do="create_token", user="iggy", name="short", seconds=5)["token"])
    assert users.by_token(short, broker.state.clock()) and not users.by_token(short, broker.state.clock() + 6_000_000)
    told(broker, do="delete_tokens", user="iggy")
    assert users.by_token(token, 0) is None


def test_users_are_deleted_and_get_other_passwords(broker: Broker) -> None:
    told(broker, do="create_user", name="pump", password="p")
    assert "there is such a user" in str(told(broker, do="create_user", name="pump", password="p")["error"])
    told(broker, do="change_password", name="pump", password="q")
    users = broker.state.users
    assert users.by_password("pump", "p") is None
    user = users.by_password("pump", "q")
    assert user is not None
    told(broker, do="delete_user", name="pump")
    assert users.by_password("pump", "q") is None
    assert "root stays" in str(told(broker, do="delete_user", name="iggy")["error"])


def test_every_action_is_allowed_by_rights_that_there_are() -> None:
    for action, (everywhere, in_stream, in_topic) in ACTIONS.items():
        assert everywhere <= set(GLOBAL) and in_stream <= set(STREAM) and in_topic <= set(TOPIC)
        assert action in everywhere | in_stream | in_topic
    nobody = User(3, "nobody", "", 0, encode_permissions(frozenset(), {}))
    assert not any(nobody.may(action, 0, 0) for action in ACTIONS)
    assert all(User(0, "root", "", 0).may(action, 0, 0) for action in ACTIONS)
