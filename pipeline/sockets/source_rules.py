"""Checks whether a message of the source direction fits this pipeline, as `sink_rules.py` does for sinks. Pure."""

from typing import Final

from msgspec import Struct

from pipeline.config.plan import EPOCH_BITS, Plan
from pipeline.points.fingerprints import FINGERPRINT_BYTES, KNOWN_BYTES
from pipeline.points.times import MAX_TIME, MIN_TIME
from pipeline.sockets.sink_rules import kind_of
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire import source as source_wire

#: Kind of process -> messages that it may send to the coordinator.
MAY_SEND: Final[dict[str, tuple[type[Struct], ...]]] = {
    "supervisor": (common.Heartbeat, wire.ProcessDied, common.Drain),
    "query": (common.Heartbeat, common.Retrying, source_wire.Discovered, source_wire.Probed, source_wire.Recounted,
              source_wire.PageRead, source_wire.PageOverflow, source_wire.Refused),
    "convert": (common.Heartbeat, common.Retrying),
    "produce": (common.Heartbeat, common.Retrying, source_wire.PageConfirmed),
}
_TIMES: Final = range(MIN_TIME, MAX_TIME + 1)


class SourceRules:
    """The sizes of one pipeline that messages are compared with. Each method returns what is wrong, or ""."""

    def __init__(self, plan: Plan) -> None:
        self._sources = len(plan.config.sources)
        self._own = frozenset({"supervisor", *plan.source_stages()})
        self._run = plan.epoch >> EPOCH_BITS

    def sender(self, name: str, message: source_wire.Control) -> str:
        """Whether a process may send this to the coordinator."""
        kind = type(message).__name__
        if name not in self._own:
            return "there is no process of this name"
        if not isinstance(message, MAY_SEND.get(kind_of(name), ())):
            return f"processes of this kind send no {kind}"
        if isinstance(message, common.Heartbeat) and message.name != name:
            return f"{kind} in the name of another process"
        return ""

    def control(self, message: source_wire.Control) -> str:
        """Whether everything that a control message names exists."""
        match message:
            case source_wire.PageRead(id=page, end=end, first=first):
                return self._page(page, end, first)
            case source_wire.PageOverflow(id=page, first=first):
                return self._page(page, first)
            case source_wire.Refused(id=page):
                return self._page(page)
            case source_wire.PageConfirmed(id=page, fingerprints=fingerprints):
                return self._page(page) or _whole(fingerprints, FINGERPRINT_BYTES)
            case source_wire.Read(id=page, window=window, overlap=overlap):
                if window.start >= window.end:
                    return "its window ends before it starts"
                return self._page(page, window.start, window.end) or _overlap(overlap)
            case source_wire.Discover() | source_wire.Discovered():
                return self._source(message.source, message.epoch)
            case source_wire.Probe(windows=windows) | source_wire.Probed(empty=windows):
                if any(not MIN_TIME <= window.start < window.end <= MAX_TIME for _, window in windows):
                    return "a window is not one"
                return self._source(message.source, message.epoch)
            case source_wire.Recount() | source_wire.Recounted():
                found = [one[1] for one in (message.windows if isinstance(message, source_wire.Recount)
                                            else message.counts)]
                if any(not MIN_TIME <= window.start < window.end <= MAX_TIME for window in found):
                    return "a window is not one"
                return self._source(message.source, message.epoch)
            case source_wire.StartPages(epoch=epoch, measurements=measurements):
                return next(filter(None, (self._source(id_.source, epoch) for id_, _ in measurements)), "")
        return ""

    def page(self, message: source_wire.Page) -> str:
        """Whether a page is valid."""
        return self._page(message.id, message.before) or _overlap(message.overlap)

    def messages(self, message: source_wire.Messages) -> str:
        """Whether the head of messages is valid."""
        return self._page(message.id, message.end) or _whole(message.fingerprints, FINGERPRINT_BYTES)

    def _page(self, page: source_wire.PageId, *times: int) -> str:
        if any(time not in _TIMES for time in (*times, page.follows[1])):
            return "a time is out of range"
        return self._source(page.measurement.source, page.epoch)

    def _source(self, source: int, epoch: int) -> str:
        if source >= self._sources:
            return f"there is no source {source}"
        return "" if epoch >> EPOCH_BITS == self._run else "it belongs to another run"


def _overlap(overlap: source_wire.Overlap | None) -> str:
    return _whole(overlap.known, KNOWN_BYTES) if overlap is not None else ""


def _whole(packed: bytes, size: int) -> str:
    return "not a whole number of fingerprints" if len(packed) % size else ""
