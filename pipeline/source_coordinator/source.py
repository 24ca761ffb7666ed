"""One configured source: its measurements, watermarks and pages."""

from pipeline.config.source_schema import SourceConfig
from pipeline.points.fingerprints import Fingerprints, fingerprints_of
from pipeline.points.times import MAX_TIME, MIN_TIME, parse_time
from pipeline.points.windows import floor
from pipeline.source_coordinator.clock import corrected
from pipeline.source_coordinator.ledger import Page, WatermarkLedger
from pipeline.source_coordinator.state import SourceState
from pipeline.source_coordinator.state_store import StateStore
from pipeline.source_coordinator.stride import Stride
from pipeline.wire import source as source_wire

MILLISECOND = 1_000_000


class Source:
    """One source: its state, its measurements, and how far they are to be read."""

    def __init__(self, index: int, config: SourceConfig, epoch: int, now: int, store: StateStore,
                 state: SourceState, trusted: int | None = None) -> None:
        """`now` in nanoseconds since 1970; `state` is what `store` had, and `trusted` as `source_clock` has it."""
        self.index = index
        self.config = config
        self.epoch = epoch
        self.store = store
        self.state = state
        #: Of the first mark that had to go back, because it was in the future: measurement, mark, and where to; "".
        self.set_back = ("", 0, 0)
        if config.from_ == "now":
            state.begun = corrected(state.begun, now, MIN_TIME, trusted)
        for measurement, mark in state.marks.items():
            state.marks[measurement] = floor(corrected(mark, now, self.begin_at(), trusted), self._align)
            if state.marks[measurement] != mark and not self.set_back[0]:
                self.set_back = measurement, mark, state.marks[measurement]
        #: What was read before the clock was set forward; None while it was not.
        self.trusted: int | None = None
        self.lanes: dict[str, WatermarkLedger] = {}
        self.discovered = False
        #: How often the state has changed, and how many of these changes are stored.
        self.changes = self.stored = 0
        #: A state was stored in which the goal was reached.
        self.goal_stored = False
        #: When the next round of windows begins, and the next look for measurements; seconds, monotonic.
        self.round_at = self.discovery_at = 0.0
        self.target = self.target_at(now)
        #: What was there when this coordinator started: once it is in Iggy, the source has caught up.
        self.goal = self._end if config.to else self.target
        self._turn = 0

    @property
    def _end(self) -> int:
        return parse_time(self.config.to) if self.config.to else MAX_TIME

    def target_at(self, now: int) -> int:
        """Up to where may be read: what is younger may still be being written."""
        return min(now - self.config.buffer_duration_ms * MILLISECOND, self._end)

    def begin_at(self) -> int:
        """Where a measurement begins that the state does not know."""
        start = {"earliest": MIN_TIME, "now": self.state.begun}.get(self.config.from_)
        start = parse_time(self.config.from_) if start is None else start
        return floor(start, self._align) if self._align > 1 else start

    @property
    def _align(self) -> int:
        return max(1, self.config.window_align_ms * MILLISECOND)

    def add_lane(self, measurement: str, ordered: bool) -> source_wire.MeasurementId | None:
        """Takes in a measurement; None when it is known already."""
        if measurement in self.lanes:
            return None
        begin = self.begin_at()
        self.goal_stored = False
        self.lanes[measurement] = WatermarkLedger(
            self.state.marks.get(measurement, begin), Stride(ordered, self._align), self.config.page_size,
            self.config.overlap_ms * MILLISECOND, begin,
            Fingerprints(self.config.max_fingerprints, fingerprints_of(self.state.prints.get(measurement, {}))))
        return source_wire.MeasurementId(self.index, measurement)

    @property
    def in_flight(self) -> int:
        """Pages on their way."""
        return sum(len(lane.pages) for lane in self.lanes.values())

    @property
    def sending(self) -> bool:
        """Whether something that was read is on its way to Iggy."""
        return any(lane.sending for lane in self.lanes.values())

    @property
    def at_goal(self) -> bool:
        """Whether all that was there at the start is in Iggy."""
        return self.discovered and not any(lane.behind(self.goal) for lane in self.lanes.values())

    @property
    def caught_up(self) -> bool:
        """Whether a state that is stored says so; perhaps not the last one, where there is always more to store."""
        return self.at_goal and (self.goal_stored or self.changes == self.stored)

    def orders(self, now: float) -> list[source_wire.Read]:
        """The next pages to read, the measurements in turn, as many as there is room for."""
        out: list[source_wire.Read] = []
        names = list(self.lanes)
        room = self.config.pages_in_flight - self.in_flight
        for step in range(len(names)):
            if len(out) >= room:
                self._turn = (self._turn + step) % len(names)
                break
            name = names[(self._turn + step) % len(names)]
            page = self.lanes[name].next(self.target, now)
            if page is not None:
                out.append(self.order(name, page))
        return out

    def order(self, measurement: str, page: Page) -> source_wire.Read:
        """The order to read a page."""
        past = None
        if self.config.overlap_ms:
            end = min(page.window.end, page.seen_until)
            past = source_wire.Overlap(page.seen_until, self.lanes[measurement].prints.between(page.window.start, end),
                                    page.remember_from)
        where = source_wire.MeasurementId(self.index, measurement)
        return source_wire.Read(source_wire.PageId(self.epoch, where, page.seq, page.attempt), page.window, page.whole,
                                past)

    def snapshot(self) -> SourceState:
        """The state as it is now."""
        for name, lane in self.lanes.items():
            self.state.marks[name] = lane.mark
            self.state.prints[name] = lane.prints.known() if self.config.overlap_ms else {}
        return SourceState(self.state.identity, self.state.begun, dict(self.state.marks), dict(self.state.prints))
