"""What crosses between the processes of the source direction; `Heartbeat`, `Retrying`, `ProcessDied` and `Drain` are
`wire`'s.

A page is known by its lane, its number there (`seq`) and the try (`attempt`): answers to an older try are ignored.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from pipeline.points.table import BadRow, Column
from pipeline.points.windows import TimeWindow
from pipeline.wire import common
from pipeline.wire import sink as wire

#: The dialects by name: as `source_wire.Page` has them.
Language = Literal["influxql", "flux", "sql", "v3_influxql", "flight_sql", "flight_influxql"]


class MeasurementId(Struct, frozen=True, array_like=True):
    """One measurement of one source. `source` is the index into the configuration's `[[sources]]`."""

    source: wire.Index
    measurement: str


class PageId(Struct, frozen=True, array_like=True):
    """Names one try at one page."""

    #: The coordinator's incarnation; what carries another one is stale and ignored.
    epoch: common.Count
    lane: MeasurementId
    #: Counts the lane's pages in the order of time, from 0 in each epoch.
    seq: common.Count
    attempt: common.Count


class Overlap(Struct, frozen=True, array_like=True):
    """What is known of a page's points from before; see `payloads.Dedupe`."""

    seen_until: int
    #: As `Fingerprints.between` packs them.
    known: bytes
    remember_from: int


class Discover(Struct, frozen=True, tag=True):
    """Coordinator -> query, about every `discovery_interval_ms`: which measurements are there?"""

    epoch: common.Count
    source: wire.Index


class Discovered(Struct, frozen=True, tag=True):
    """Query -> coordinator, answers Discover. `ordered`: answers to page queries are in the order of time."""

    epoch: common.Count
    source: wire.Index
    measurements: list[str]
    ordered: bool


class Read(Struct, frozen=True, tag=True):
    """Coordinator -> query: ask for a window, and send the page on."""

    id: PageId
    window: TimeWindow
    #: All of it, however much that is: it was read before, or can't be made smaller.
    whole: bool
    past: Overlap | None


class PageRead(Struct, frozen=True, tag=True):
    """Query -> coordinator, before it sends the page on: it covers the window up to `end`."""

    id: PageId
    end: int
    rows: common.Count
    size: common.Count
    #: Time of the first row, where that is known; else the window's start.
    first: int


class PageOverflow(Struct, frozen=True, tag=True):
    """Query -> coordinator: the window has more than a page of rows, in no order; nothing was sent on."""

    id: PageId
    #: All rows so far are of the window's first time, which is to be read whole.
    one_time: bool
    #: Time of some row, where that is known; else the window's start.
    first: int


class StartPages(Struct, frozen=True, tag=True):
    """Coordinator -> produce: a lane's pages come from this `seq` on."""

    epoch: common.Count
    lanes: list[tuple[MeasurementId, common.Count]]


class PageConfirmed(Struct, frozen=True, tag=True):
    """Produce -> coordinator: Iggy has confirmed all messages of the page (or it had none)."""

    id: PageId
    points: common.Count
    messages: common.Count
    size: common.Count
    rejected: common.Count
    #: Points of the overlap that had been sent before.
    repeated: common.Count
    #: Of the points to remember, as `fingerprints.pack` packs them.
    prints: bytes


# Data: PUSH -> PULL


class Page(Struct, frozen=True, tag=True):
    """Query -> convert. Bulk: the server's answer."""

    id: PageId
    #: What the answer is in.
    language: Language
    columns: tuple[Column, ...]
    #: Rows from here on belong to the next page.
    before: int
    past: Overlap | None


class Messages(Struct, frozen=True, tag=True):
    """Convert -> produce. Bulk: MessagePack list of messages (bin), and of the hashes of their series."""

    id: PageId
    #: Where the page's window ends.
    end: int
    points: common.Count
    repeated: common.Count
    bad: list[BadRow]
    prints: bytes


# Status: the source coordinator's PUB


class LaneStatus(Struct, frozen=True):
    """Where one measurement stands. Times in nanoseconds since 1970."""

    source: str
    measurement: str
    #: Everything before it is in Iggy.
    mark: int
    in_flight: int


class SourceStatus(Struct, frozen=True, tag=True):
    """Source coordinator -> whoever subscribes, four times a second. Counters since its start."""

    epoch: int
    #: Every process has said Hello, measurements are known, and none is paused.
    ready: bool
    drained: bool
    #: All that was there at the coordinator's start (or, with `to`, all before that) is in Iggy, and the state stored.
    caught_up: bool
    rows: int
    points: int
    messages: int
    sent_bytes: int
    rejected: int
    repeated: int
    pages: int
    in_flight: int
    #: Pages that were read once more because a process died, or they were overdue.
    reread: int
    #: When the first page was ordered and the last one confirmed: seconds, CLOCK_MONOTONIC; 0 before.
    first_at: float
    last_at: float
    pids: dict[str, int]
    startup_cpu: dict[str, float]
    retrying: dict[str, str]
    paused: bool
    lanes: list[LaneStatus]
    now: float = 0.0
    heard: dict[str, float] = {}
    fatal: str = ""
    #: Messages of strangers, or of another version, that processes have dropped.
    dropped: int = 0


Control = (
    common.Heartbeat | common.Retrying | wire.ProcessDied | common.Drain | Discover | Discovered | Read | PageRead
    | PageOverflow
    | StartPages | PageConfirmed
)

_control: "msgspec.msgpack.Decoder[Control]" = msgspec.msgpack.Decoder(Control)
_page = msgspec.msgpack.Decoder(Page)
_messages = msgspec.msgpack.Decoder(Messages)
_status = msgspec.msgpack.Decoder(SourceStatus)


def read_control(frames: Sequence[Any]) -> Control:
    """The control message in frames. Raises wire.Malformed for anything else."""
    return wire.read(_control, frames)[0]


def read_page(frames: Sequence[Any]) -> tuple[Page, bytes]:
    """A Page and the server's answer. Raises wire.Malformed for anything else."""
    page, (body,) = wire.read(_page, frames, 2)
    return page, bytes(wire.buffer_of(body))


def read_messages(frames: Sequence[Any]) -> tuple[Messages, bytes]:
    """The head of Messages, and its bulk. Raises wire.Malformed for anything else."""
    messages, (bulk,) = wire.read(_messages, frames, 2)
    return messages, bytes(wire.buffer_of(bulk))


def decode_status(frame: Any) -> SourceStatus:
    """A SourceStatus, which is one frame. Raises msgspec.DecodeError or ValidationError for anything else."""
    return _status.decode(frame)
