"""The messages of the source direction: tagged MessagePack Structs. ProcessDied is `wire.sink`'s.

A page is identified by its measurement, its number there (`seq`) and the attempt. Answers to an earlier attempt are
ignored.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from pipeline.points.table import BadRow, Column
from pipeline.points.windows import TimeWindow
from pipeline.wire import sink as wire
from pipeline.wire.common import CoordinatorStatus, Count, Drain, Heartbeat, Index, Retrying
from pipeline.wire.decode import buffer_of, read

#: Names of the dialects, in `Page`.
Language = Literal["influxql", "flux", "sql", "v3_influxql", "flight_sql", "flight_influxql"]


#: Where a page ends: the number of its round, and the time, nanoseconds since 1970.
Position = tuple[Count, int]


class MeasurementId(Struct, frozen=True, array_like=True):
    """One measurement of one source."""

    #: Index into the configuration's sources.
    source: Index
    name: str


class PageId(Struct, frozen=True, array_like=True):
    """One attempt at one page."""

    #: The coordinator's epoch. A page of another epoch is stale and ignored.
    epoch: Count
    measurement: MeasurementId
    #: Number of the page among those of its measurement, in the order in which they were ordered, from 0 in each epoch.
    seq: Count
    attempt: Count
    #: Its round, and the end of the page that is to be sent before it.
    round: Count = 0
    follows: Position = (0, 0)


class Overlap(Struct, frozen=True, array_like=True):
    """What is known of a page's points from earlier rounds; `stages.convert.payloads.Dedupe` uses it."""

    #: Points before this time may have been sent already, nanoseconds since 1970.
    seen_until: int
    #: Their fingerprints, packed by `Fingerprints.between`.
    known: bytes
    #: Fingerprints of points from this time on are to be returned.
    remember_from: int


class Discover(Struct, frozen=True, tag=True):
    """Coordinator -> query, every `discovery_interval_ms`: which measurements does the source have?"""

    epoch: Count
    source: Index


class Discovered(Struct, frozen=True, tag=True):
    """Query -> coordinator, answers Discover. `ordered`: answers to page queries are in the order of time."""

    epoch: Count
    source: Index
    measurements: list[str]
    ordered: bool
    #: Many measurements can be asked at once whether they have points: see Probe.
    probes: bool = False
    #: Retention policy ("": the default one) -> width of its shards, nanoseconds, where that is known.
    shard_widths: dict[str, Count] = {}


class Probe(Struct, frozen=True, tag=True):
    """Coordinator -> query: which of these idle measurements have points in their windows?"""

    epoch: Count
    source: Index
    windows: list[tuple[str, TimeWindow]]


class Probed(Struct, frozen=True, tag=True):
    """Query -> coordinator, answers Probe: the windows without points, and the measurements that are to be read."""

    epoch: Count
    source: Index
    empty: list[tuple[str, TimeWindow]]
    others: list[str]


class Recount(Struct, frozen=True, tag=True):
    """Coordinator -> query: how many points do these windows have by now? The last number is that of their rows in
    Iggy. A measurement has one window at most."""

    epoch: Count
    source: Index
    windows: list[tuple[str, TimeWindow, Count]]


class Recounted(Struct, frozen=True, tag=True):
    """Query -> coordinator, answers Recount: the rows of windows, at least so many; and measurements whose points
    cannot be counted. What could not be asked now is left out."""

    epoch: Count
    source: Index
    counts: list[tuple[str, TimeWindow, Count]]
    uncountable: list[str]


class Read(Struct, frozen=True, tag=True):
    """Coordinator -> query: query a window, and send its page to a converter."""

    id: PageId
    window: TimeWindow
    #: Read the window without a limit of rows: it was read before, or cannot be made smaller.
    whole: bool
    overlap: Overlap | None
    #: The page may have so many rows and bytes where that is more than configured: 0, or by what one time has had.
    rows: Count = 0
    size: Count = 0


class PageRead(Struct, frozen=True, tag=True):
    """Query -> coordinator, before it sends the page: the page covers the window up to `end`."""

    id: PageId
    end: int
    rows: Count
    size: Count
    #: Time of the first row, where that is known; else the window's start.
    first: int
    #: Points of the measurement in the future, which are not read yet; None where they were not counted.
    future: Count | None = None


class PageOverflow(Struct, frozen=True, tag=True):
    """Query -> coordinator: the window has more rows than a page, in no order, or is too slow. No page was sent."""

    id: PageId
    #: All rows seen have the time `first`, the first one of the window that has rows: it is to be read whole.
    one_time: bool
    #: Time of some row, where that is known; else the window's start.
    first: int
    #: The window takes the server too long, or too much memory: the next ones should not be wider.
    slow: bool = False


class Refused(Struct, frozen=True, tag=True):
    """Query -> coordinator: the server has refused the query for a page twice, and others not. It is tried again."""

    id: PageId
    #: The server's.
    message: str


class StartPages(Struct, frozen=True, tag=True):
    """Coordinator -> produce: what the next page of these measurements follows."""

    epoch: Count
    measurements: list[tuple[MeasurementId, Position]]


class PageConfirmed(Struct, frozen=True, tag=True):
    """Produce -> coordinator: Iggy has confirmed all messages of the page, if it had any."""

    id: PageId
    points: Count
    messages: Count
    size: Count
    rejected: Count
    #: Points of the overlap that had been sent before.
    repeated: Count
    #: Fingerprints of the points to remember, packed by `fingerprints.pack`.
    fingerprints: bytes
    #: Rows of the page; with an overlap those before `Overlap.remember_from`, which will not be read again.
    settled: Count = 0


def joined(before: PageConfirmed, part: PageConfirmed) -> PageConfirmed:
    """What Iggy has confirmed of a page, with one more part of it."""
    return PageConfirmed(part.id, before.points + part.points, before.messages + part.messages,
                         before.size + part.size, before.rejected + part.rejected, before.repeated + part.repeated,
                         before.fingerprints + part.fingerprints, before.settled + part.settled)


# Data: PUSH -> PULL


class Page(Struct, frozen=True, tag=True):
    """Query -> convert. Further part: the server's answer."""

    id: PageId
    #: Language of the query, which decides the format of the answer.
    language: Language
    columns: tuple[Column, ...]
    #: Rows from this time on belong to the next page.
    before: int
    overlap: Overlap | None


class Messages(Struct, frozen=True, tag=True):
    """Convert -> produce. Further part: MessagePack list of messages (bin), and of the hashes of their series."""

    id: PageId
    #: End of the page's window.
    end: int
    points: Count
    repeated: Count
    bad: list[BadRow]
    fingerprints: bytes
    #: As of PageConfirmed.
    settled: Count = 0
    #: A page of more than `page_size` rows comes in parts, from 0 on, from one converter.
    part: Count = 0
    is_last: bool = True


# Status: PUB of the source coordinator


class MeasurementStatus(Struct, frozen=True):
    """Progress of one measurement. Times in nanoseconds since 1970."""

    source: str
    measurement: str
    #: All points before it are in Iggy.
    watermark: int
    #: Pages.
    in_flight: int
    #: How much of what existed at the start is in Iggy, by time, 0 to 1.
    share: float = 0.0
    #: Points that were written after their time was read, as far as they were counted.
    late: int = 0


class SourceTotals(Struct, frozen=True):
    """Totals of one source."""

    source: str
    rows: int = 0
    points: int = 0
    messages: int = 0
    sent_bytes: int = 0
    rejected: int = 0
    repeated: int = 0
    pages: int = 0
    #: Windows that were made narrower, because they had more rows than a page, or took the server too long.
    narrowed: int = 0
    #: How much of what existed at the start is in Iggy, by time, 0 to 1: the mean of its measurements; and about how
    #: many seconds the rest takes, -1 while that cannot be told.
    share: float = 0.0
    seconds_left: float = -1.0
    #: Points that were written after their time was read, and so were missed, as far as they were counted.
    late: int = 0


class SourceStatus(CoordinatorStatus, frozen=True, kw_only=True, tag=True):
    """Source coordinator -> supervisor, demo, bench: four times a second."""

    #: All that existed when the coordinator started (or, with `to`, all before it) is in Iggy, and the state stored.
    caught_up: bool
    rows: int
    points: int
    messages: int
    repeated: int
    pages: int
    #: When the first page was ordered and the last one confirmed: seconds, CLOCK_MONOTONIC; 0 before.
    first_at: float
    last_at: float
    measurements: list[MeasurementStatus]
    #: Points in the future, as last counted, which are not read yet.
    future: int = 0
    #: Why the server refuses measurements, by "SOURCE: MEASUREMENT".
    refused: dict[str, str] = {}
    totals: list[SourceTotals] = []

    @property
    def share(self) -> float:
        """The share of all sources."""
        return sum(one.share for one in self.totals) / max(1, len(self.totals))

    @property
    def seconds_left(self) -> float:
        """About how many seconds the slowest source takes, -1 while that cannot be told."""
        left = [one.seconds_left for one in self.totals]
        return -1.0 if not left or min(left) < 0 else max(left)


# Samples: XPUB of produce


class MessageSample(Struct, frozen=True):
    """One message that is about to be sent."""

    source: str
    measurement: str
    stream: str
    topic: str
    #: -1: Iggy chooses.
    partition: int
    size: int
    #: The payload, cut where it is very long; and how it is shown where it is not text.
    text: str
    encoding: str


class RowSample(Struct, frozen=True):
    """One row that could not become a message."""

    source: str
    measurement: str
    stream: str
    topic: str
    reason: str
    detail: str
    row: str


class MessageSamples(Struct, frozen=True, tag=True):
    """Produce -> HTTP process, while somebody taps: some messages of one page, and some of its rejected rows."""

    messages: list[MessageSample]
    rejects: list[RowSample]


Control = (
    Heartbeat | Retrying | Drain | wire.ProcessDied
    | Discover | Discovered | Probe | Probed | Recount | Recounted
    | Read | PageRead | PageOverflow | Refused | StartPages | PageConfirmed
)

_control: "msgspec.msgpack.Decoder[Control]" = msgspec.msgpack.Decoder(Control)
_page = msgspec.msgpack.Decoder(Page)
_messages = msgspec.msgpack.Decoder(Messages)
_status = msgspec.msgpack.Decoder(SourceStatus)


def read_control(frames: Sequence[Any]) -> Control:
    """The control message in frames. Raises Malformed for anything else."""
    return read(_control, frames)[0]


def read_page(frames: Sequence[Any]) -> tuple[Page, bytes]:
    """A Page and the server's answer. Raises Malformed for anything else."""
    page, (body,) = read(_page, frames, 2)
    return page, bytes(buffer_of(body))


def read_messages(frames: Sequence[Any]) -> tuple[Messages, bytes]:
    """Messages without their payloads, and the part that holds them. Raises Malformed for anything else."""
    messages, (bulk,) = read(_messages, frames, 2)
    return messages, bytes(buffer_of(bulk))


def decode_status(frame: Any) -> SourceStatus:
    """A SourceStatus, which is one frame. Raises msgspec.DecodeError or ValidationError for anything else."""
    return _status.decode(frame)
