"""Messages that both directions use, and how every message is encoded."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

#: A count or an offset. Decoding fails for a number outside its range.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
#: The same, where -1 stands for "none".
CountOrNone = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
#: Index of a topic, sink, source or process.
Index = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Pid = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Heartbeat(Struct, frozen=True, tag=True):
    """Any process -> coordinator, at its start and every second. A new coordinator learns of every process by it."""

    name: str
    pid: Pid
    #: CPU seconds that this process had used at its first heartbeat: the cost of its start-up.
    startup_cpu: float = 0.0
    #: Messages that it has dropped because they were malformed or did not fit the pipeline.
    dropped: Count = 0


class Problem(Struct, frozen=True, array_like=True):
    """One external failure that a process is retrying."""

    #: The sink or source that waits for it; "" for all.
    name: str
    reason: str
    #: An operator has to act: credentials, a missing bucket or topic.
    paused: bool = False


class Retrying(Struct, frozen=True, tag=True):
    """Any process -> coordinator: an external call fails and is being retried; the reason is "" once it works again."""

    reason: str
    #: An operator has to act: credentials, a missing bucket or topic.
    paused: bool = False
    #: The same one by one, of a process that works for several sinks or sources; empty: it is one for all.
    problems: list[Problem] = []


class Waiting(Struct, frozen=True):
    """One external failure that a process is retrying, as a coordinator publishes it."""

    process: str
    #: The sink or source that waits for it; "" for all.
    name: str
    reason: str
    paused: bool
    #: Since when: seconds since 1970.
    since: float


class Drain(Struct, frozen=True, tag=True):
    """Supervisor -> coordinator -> ingest: stop reading; finish what is in flight."""


class CoordinatorStatus(Struct, frozen=True, kw_only=True):
    """What the coordinators of both directions publish. Counters start at 0 with the coordinator."""

    epoch: int
    #: Every process has sent a heartbeat, none is paused, and it is known what to read.
    ready: bool
    #: Everything that was read is settled and stored, and no more is read.
    drained: bool
    rejected: int
    #: Bytes sent to the target, after compression.
    sent_bytes: int
    #: Messages, or pages of the source direction, that were dispatched and are not settled.
    in_flight: int
    #: Batches, or pages of the source direction, that were read again: a process died, or they were overdue.
    redelivered: int
    #: Pid, and CPU seconds of the start-up, of every process that has sent a heartbeat, by name.
    pids: dict[str, int]
    startup_cpu: dict[str, float]
    #: Process -> the external failure that it is retrying.
    retrying: dict[str, str]
    #: One of them waits for an operator.
    paused: bool
    #: When this was sent, and when each process was last heard from: seconds, CLOCK_MONOTONIC.
    now: float = 0.0
    last_heard: dict[str, float] = {}
    #: Why the pipeline must stop; "" while it may continue.
    fatal: str = ""
    #: Messages that processes have dropped because they were malformed or did not fit the pipeline.
    dropped: int = 0
    #: `retrying` one by one, with sinks and times.
    waiting: list[Waiting] = []
    #: When the coordinator was started, seconds since 1970: all counters are 0 then.
    started_at: float = 0.0


_encoder = msgspec.msgpack.Encoder()


def encode(message: Struct) -> bytes:
    """One Struct as MessagePack."""
    return _encoder.encode(message)
