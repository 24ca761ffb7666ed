"""Messages that both directions use, and how every message is encoded."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

#: What is counted, offsets among it; and the same where -1 stands for "none". A number beyond them is not decoded.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Pid = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Heartbeat(Struct, frozen=True, tag=True):
    """Any process -> coordinator, at its start and every second: so a new coordinator soon knows everybody."""

    name: str
    pid: Pid
    #: CPU seconds this process had used when it first said Hello: what its start-up cost.
    startup_cpu: float = 0.0
    #: Messages that it has dropped, because they were none of this pipeline's.
    dropped: Count = 0


class Retrying(Struct, frozen=True, tag=True):
    """Writer or dead-letter -> coordinator: something outside fails and will be tried again; "" once it works."""

    reason: str
    #: A person has to do something: credentials, a missing bucket or topic.
    paused: bool = False


class Drain(Struct, frozen=True, tag=True):
    """Supervisor -> coordinator -> ingest: stop reading; finish what is in flight."""


_encoder = msgspec.msgpack.Encoder()


def encode(message: Struct) -> bytes:
    """One Struct as MessagePack."""
    return _encoder.encode(message)
