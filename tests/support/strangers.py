"""Peers that are none of a pipeline's: what they send, by a seed."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import zmq

from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire
from pipeline.wire.frames import FRAME_BYTES

#: What finds its way to any open port.
GREETINGS = (
    b"GET / HTTP/1.1\r\nHost: pipeline\r\n\r\n",
    # The begin of a TLS 1.2 ClientHello.
    bytes.fromhex("16030102000100 01fc0303") + bytes(range(64)),
    b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 64, b"\xff" * 64,
    # A greeting of ZMTP 3.1, mechanism NULL, and then a frame that says that it is 2^62 bytes long.
    b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16 + 1 + 31) + b"\x02" + (1 << 62).to_bytes(8, "big"),
    # One of ZMTP 1.0, which has none.
    b"\x01\x00\x05\x00abcd",
)
PARTITION = wire.Partition(0, 0)


def a_range(**more: Any) -> wire.Range:
    """A range that nobody has dispatched."""
    usual = {"epoch": 1, "partition": PARTITION, "first": 0, "last": 9, "messages": 10, "bytes": 100}
    return wire.Range(**{**usual, **more})


def messages(epoch: int) -> list[msgspec.Struct]:
    """One of every kind, and some that make no sense; ranges are of the present epoch."""
    absent = wire.Partition(7, 2**32 - 1)
    ranges = [a_range(epoch=epoch), a_range(epoch=epoch, partition=absent), a_range(epoch=epoch, ingest=99),
              a_range(epoch=epoch, first=5, last=2), a_range(epoch=epoch, messages=0),
              a_range(epoch=epoch, partition=wire.Partition(0, 3_000_000_000)),
              a_range(epoch=epoch, first=2**62, last=2**63 - 1)]
    reject = wire.Reject(2**40, "reason", "detail")
    found: list[msgspec.Struct] = [
        common.Heartbeat("encode-0", 2**30), common.Heartbeat("nobody", 1), common.Drain(), wire.Stopped(),
        wire.Failed("stop!"),
        wire.ProcessDied("ingest"), wire.Leave("encode-0"), wire.Join("encode-0", 1, "digest"),
        wire.Encoded(2**62, 2**62),
        common.Retrying("x", True), wire.Credit(epoch, 0, 0), wire.Assign(2**60, [], 0, 0),
        wire.FieldTypesRequest("nowhere", "m", {"f": "float"}), wire.TagCardinalities(0, {"t": b"\xff" * 2_048}),
        wire.TagCardinalities(99, {"t": b""}), wire.Started(epoch, [wire.PartitionStart(absent, 0, -1, 0)]),
        wire.Truncated(epoch, absent, 0, -1, 0), wire.Gap(epoch, PARTITION, 9, 3), wire.Revoked(epoch, [absent], True),
        wire.Stored(epoch, PARTITION, 0, 2**40, ""), wire.Progress([(absent, 5), (PARTITION, 2**62)]),
        wire.Allowed(["key"])]
    for one in ranges:
        found += [wire.Dispatched(one), wire.Settled(one, 5, 5, []), wire.Settled(one, 0, 0, [reject]),
                  wire.DeadLettersStored(one), wire.StoreDeadLetters(one, [reject]), wire.Redeliver([one])]
    page = source_wire.PageId(epoch, source_wire.MeasurementId(9, "m"), 0, 0)
    return [*found, source_wire.PageConfirmed(page, 1, 1, 1, 0, 0, b"123"),
            source_wire.PageRead(page, 2**63 - 1, 1, 1, 0),
            source_wire.PageOverflow(page, True, -2**63 + 2), source_wire.Discovered(epoch, 9, ["m"], True)]


def garbage(chance: random.Random, epoch: int) -> Iterator[list[bytes]]:
    """Messages as frames without end: random, empty, huge, valid, cut short, with flipped bits, joined, too many."""
    valid = [msgspec.msgpack.encode(message) for message in messages(epoch)]
    while True:
        frame = bytearray(chance.choice(valid))
        match chance.randrange(8):
            case 0:
                yield [chance.randbytes(chance.randrange(200))]
            case 1:
                yield [b""] * chance.randrange(1, 5)
            case 2:
                yield [bytes(frame)]
            case 3:
                yield [bytes(frame[:chance.randrange(len(frame))])]
            case 4:
                for _ in range(chance.randrange(1, 6)):
                    frame[chance.randrange(len(frame))] = chance.randrange(256)
                yield [bytes(frame)]
            case 5:
                yield [bytes(frame), *(chance.choice(valid) for _ in range(chance.randrange(1, 30)))]
            case 6:
                yield [b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"][chance.randrange(2):]
            case _:
                yield [bytes(FRAME_BYTES)] * chance.randrange(1, 4)


@contextmanager
def peer(kind: int, endpoint: str, identity: bytes = b"") -> Iterator["zmq.Socket[bytes]"]:
    """A socket that is connected to an endpoint of a pipeline."""
    own: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    if identity:
        own.setsockopt(zmq.IDENTITY, identity)
    own.setsockopt(zmq.SNDTIMEO, 200)
    own.connect(endpoint)
    try:
        yield own
    finally:
        own.close(linger=100)


def shout(address: str | Path | tuple[str, int], words: bytes) -> None:
    """Connects to a Unix socket or a TCP port, sends bytes, and goes."""
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with socket.socket(family) as raw:
        raw.settimeout(2)
        try:
            raw.connect(address if isinstance(address, tuple) else str(address))
            raw.sendall(words)
            raw.recv(1_000)
        except OSError:
            pass
