"""The sandbox broker answers recorded requests of the real client as the real server answered them.

`tests/data/iggy-frames.ndjson`: 60 requests and replies between client 0.9.0 (topic creation: 0.9.0.dev4) and server
0.9.0-edge.5, on three connections. All of them are sent, in order and byte for byte, and every reply is compared byte
for byte, but for what MASKS says.
"""

import asyncio
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import xxhash

from pipeline.testbed.sandbox.iggy.server import Broker

FRAMES = Path(__file__).parents[1] / "data" / "iggy-frames.ndjson"
READ, REGISTER = 2, 1
POLL, CLUSTER, GET_STREAM, GET_TOPIC = 100, 12, 200, 300
CREATE_STREAM, CREATE_TOPIC, SEND, DELETE_OFFSET = 128, 132, 160, 162
#: Connections whose login isn't among the recorded frames: the test logs in for them, with connection 2's login.
WITHOUT_LOGIN = {3}


class Exchange(NamedTuple):
    """A request, and the reply that was recorded."""

    step: str
    connection: int
    request: bytes
    reply: bytes

    @property
    def operation(self) -> int:
        """The request's operation."""
        return self.request[176]

    @property
    def code(self) -> int:
        """The request's command code; 0 unless it is a read."""
        return int.from_bytes(self.request[196:200], "little") if self.operation == READ else 0

    @property
    def on_partition(self) -> bool:
        """Whether it is an operation on a partition."""
        return self.operation >= SEND

    @property
    def denied(self) -> bool:
        """Whether it was refused by status."""
        return any(self.reply[216:220])


def frame(recorded: dict[str, Any]) -> bytes:
    """A recorded frame's bytes."""
    header = bytearray(256)
    for at, run in recorded["header_nonzero"].items():
        value = bytes.fromhex(run)
        header[int(at):int(at) + len(value)] = value
    return bytes(header) + bytes.fromhex(recorded["body"])


def exchanges() -> list[Exchange]:
    """All recorded requests with their replies, in order."""
    frames = [json.loads(line) for line in FRAMES.read_text().splitlines()]
    pairs = list(zip(frames[::2], frames[1::2], strict=True))
    assert all((request["direction"], reply["direction"]) == ("client->server", "server->client")
               and request["connection"] == reply["connection"] for request, reply in pairs)
    return [Exchange(request["step"], request["connection"], frame(request), frame(reply)) for request, reply in pairs]


EXCHANGES = exchanges()
Ranges = Iterator[tuple[int, int]]


def header_field(start: int, end: int, when: Callable[[Exchange], bool] = lambda exchange: True,
                 ) -> Callable[[Exchange], Ranges]:
    """A field of the header, where `when` holds."""
    def ranges(exchange: Exchange) -> Ranges:
        if when(exchange):
            yield start, end
    return ranges


def login_session(exchange: Exchange) -> Ranges:
    """The session in the reply to a login."""
    if exchange.operation == REGISTER and len(exchange.reply) > 256:
        yield 256 + 8, 256 + 16


def topic_end(reply: bytes, at: int) -> int:
    """Where the description of a topic that begins at `at` ends; its time of creation is at `at + 4`."""
    name_at = at + 49
    options_at = name_at + 1 + reply[name_at]
    derived_at = options_at + 4 + int.from_bytes(reply[options_at:options_at + 4], "little")
    return derived_at + 4 + int.from_bytes(reply[derived_at:derived_at + 4], "little")


def creation_times(exchange: Exchange) -> Ranges:
    """When streams, topics and partitions were created."""
    reply, at = exchange.reply, 256 + (4 if exchange.operation != READ else 0)
    if exchange.operation == CREATE_STREAM or exchange.code == GET_STREAM:
        if len(reply) > 256 + 12:
            yield at + 4, at + 12
            at += 32 + 1 + reply[at + 32] + 4
            while at < len(reply):
                yield at + 4, at + 12
                at = topic_end(reply, at)
    if (exchange.operation == CREATE_TOPIC or exchange.code == GET_TOPIC) and len(reply) > 256:
        yield at + 4, at + 12
        for partition_at in range(topic_end(reply, at), len(reply), 40):
            yield partition_at + 4, partition_at + 12


def batches(reply: bytes) -> Iterator[tuple[int, int]]:
    """Where the batches of a poll's reply begin and end."""
    at = 256 + 16
    while at < len(reply):
        end = at + int.from_bytes(reply[at + 32:at + 40], "little")
        yield at, end
        at = end


def batch_field(start: int, end: int) -> Callable[[Exchange], Ranges]:
    """A field of every polled batch's header."""
    def ranges(exchange: Exchange) -> Ranges:
        if exchange.code == POLL:
            for at, _ in batches(exchange.reply):
                yield at + start, at + end
    return ranges


def cluster_ports(exchange: Exchange) -> Ranges:
    """The ports in the description of the cluster."""
    if exchange.code == CLUSTER:
        yield len(exchange.reply) - 10, len(exchange.reply) - 2


class Mask(NamedTuple):
    """What isn't compared byte for byte, and why. It must be zero in both or in neither, unless `free`."""

    field: str
    ranges: Callable[[Exchange], Ranges]
    reason: str
    free: bool = False


MASKS = (
    Mask("header: time of the commit", header_field(192, 200), "the clock"),
    Mask("header: operation and commit number of metadata and logins",
         header_field(176, 192, lambda e: not e.on_partition and e.operation != READ and not e.denied),
         "count all that a server has committed in its life"),
    Mask("header: commit number of reads and denials",
         header_field(184, 192, lambda e: e.operation == READ or e.denied),
         "the same counter; and a shard of the real server that doesn't keep it says 0", free=True),
    Mask("header: client of partition operations and denials",
         header_field(160, 176, lambda e: e.on_partition or e.denied), "the server's own number of the connection"),
    Mask("header: cluster of evictions", header_field(32, 48, lambda e: e.reply[60] == 13),
         "only the real server's first shard knows it; connection 1 was on another", free=True),
    Mask("login: session", login_session, "the number of the login's operation"),
    Mask("streams, topics, partitions: created at", creation_times, "the clock"),
    Mask("batches: base timestamp", batch_field(16, 24), "the clock"),
    Mask("batches: checksum", batch_field(40, 48), "covers the base timestamp; proven right by a test of its own"),
    Mask("cluster: ports", cluster_ports, "the port is free to choose, and the sandbox has no other transports",
         free=True),
)


async def replay() -> list[bytes]:
    """What a sandbox broker answers to each recorded request."""
    broker = Broker(strict_options=True)
    broker.state.new_stream("there before the recording began")
    await broker.start()
    streams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
    answers = []

    async def ask(number: int, request: bytes) -> bytes:
        reader, writer = streams[number]
        writer.write(request)
        header = await asyncio.wait_for(reader.readexactly(256), 60)
        return header + await reader.readexactly(int.from_bytes(header[48:52], "little") - 256)

    for exchange in EXCHANGES:
        number = exchange.connection
        if number not in streams:
            streams[number] = await asyncio.open_connection(broker.host, broker.port)
            if number in WITHOUT_LOGIN:
                login = next(e.request for e in EXCHANGES if e.connection == 2 and e.step == "login_user")
                await ask(number, login[:128] + exchange.request[128:144] + login[144:])
        answers.append(await ask(number, exchange.request))
    for _, writer in streams.values():
        writer.close()
    await broker.stop()
    return answers


@pytest.fixture(scope="module")
def answers() -> list[bytes]:
    """The sandbox broker's replies, in the order of EXCHANGES."""
    return asyncio.run(replay())


def masked(exchange: Exchange, reply: bytes) -> bytes:
    """The reply with `?` for each masked byte, or `!` where the mask demands something other than zero."""
    result = bytearray(reply)
    for mask in MASKS:
        for start, end in mask.ranges(exchange):
            mark = b"?" if mask.free or not any(reply[start:end]) else b"!"
            result[start:end] = mark * (end - start)
    return bytes(result)


def difference(expected: bytes, found: bytes) -> str:
    """Where two masked replies differ, in words."""
    if len(expected) != len(found):
        return f"{len(found)} bytes instead of {len(expected)}: body {found[256:].hex()}, not {expected[256:].hex()}"
    at = next(index for index, (one, other) in enumerate(zip(expected, found, strict=True)) if one != other)
    place = f"header byte {at}" if at < 256 else f"body byte {at - 256}"
    return f"from {place} on {found[at:at + 24].hex()} instead of {expected[at:at + 24].hex()}"


@pytest.mark.parametrize("number", range(len(EXCHANGES)), ids=lambda number: f"{number:02d} {EXCHANGES[number].step}")
def test_the_broker_answers_as_the_recorded_server_did(number: int, answers: list[bytes]) -> None:
    exchange = EXCHANGES[number]
    expected, found = masked(exchange, exchange.reply), masked(exchange, answers[number])
    assert expected == found, f"{exchange.step}: {difference(expected, found)}"


def test_all_recorded_frames_are_compared() -> None:
    assert 2 * len(EXCHANGES) == len(FRAMES.read_text().splitlines()) == 120


def test_every_mask_is_used_somewhere() -> None:
    unused = [mask.field for mask in MASKS if not any(list(mask.ranges(exchange)) for exchange in EXCHANGES)]
    assert not unused


def test_served_and_recorded_batches_carry_the_right_checksums(answers: list[bytes]) -> None:
    checked = 0
    for exchange, answer in zip(EXCHANGES, answers, strict=True):
        for reply in (exchange.reply, answer) if exchange.code == POLL else ():
            for start, end in batches(reply):
                header, at, sums = reply[start:start + 256], start + 256, b""
                while at < end:
                    size = 48 + sum(struct.unpack_from("<II", reply, at + 32))
                    assert struct.unpack_from("<Q", reply, at)[0] == xxhash.xxh3_64_intdigest(reply[at + 8:at + size])
                    sums += reply[at:at + 8]
                    at += size
                stamped = struct.unpack_from("<Q", header, 40)[0]
                assert stamped == xxhash.xxh3_64_intdigest(header[:40] + header[48:52] + sums), exchange.step
                checked += 1
    assert checked == 28
