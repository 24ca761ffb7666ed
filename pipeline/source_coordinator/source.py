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
    """One source: its state, the ledgers of its measurements, and up to where they are to be read."""

    def __init__(self, index: int, config: SourceConfig, epoch: int, now: int, store: StateStore,
                 state: SourceState, trusted: int | None = None) -> None:
        """`now`: nanoseconds since 1970; `state`: loaded from `store`; `trusted`: of `clock.corrected`."""
        self.index = index
        self.config = config
        self.epoch = epoch
        self.store = store
        self.state = state
        #: The first watermark that was moved back because it was in the future: measurement ("": none), from, to.
        self.moved_back = ("", 0, 0)
        # Watermarks up to `to` are right where points of the future are read.
        now_or_end = max(now, self._end) if self._reads_future else now
        if config.from_ == "now":
            state.begun = corrected(state.begun, now, MIN_TIME, trusted)
        for measurement, watermark in state.watermarks.items():
            right = corrected(watermark, now_or_end, self.begin_at(), trusted)
            state.watermarks[measurement] = floor(right, self._align)
            if state.watermarks[measurement] != watermark and not self.moved_back[0]:
                self.moved_back = measurement, watermark, state.watermarks[measurement]
        #: The target before the clock was set forward; None while it was not.
        self.trusted: int | None = None
        #: By measurement.
        self.ledgers: dict[str, WatermarkLedger] = {}
        #: Measurement -> its points in the future, as last counted.
        self.future: dict[str, int] = {}
        self.discovered = False
        #: How often the state has changed, and how many of these changes are stored.
        self.changes = self.stored = 0
        #: A state was stored in which the goal was reached.
        self.goal_stored = False
        #: When the next round of windows starts, and measurements are discovered again; seconds, monotonic.
        self.round_at = self.discovery_at = 0.0
        self.target = self.target_at(now)
        #: The source has caught up once everything before it is in Iggy: what existed when this coordinator started.
        self.goal = self._end if config.to else self.target
        self._turn = 0

    @property
    def _end(self) -> int:
        return parse_time(self.config.to) if self.config.to else MAX_TIME

    @property
    def _reads_future(self) -> bool:
        return self.config.read_future_points and bool(self.config.to)

    def target_at(self, now: int) -> int:
        """Up to where may be read at `now`: more recent points may still be being written."""
        if self._reads_future:
            return self._end
        return min(now - self.config.buffer_duration_ms * MILLISECOND, self._end)

    def begin_at(self) -> int:
        """Where a measurement begins that has no watermark in the state."""
        start = {"earliest": MIN_TIME, "now": self.state.begun}.get(self.config.from_)
        start = parse_time(self.config.from_) if start is None else start
        return floor(start, self._align) if self._align > 1 else start

    @property
    def _align(self) -> int:
        return max(1, self.config.window_align_ms * MILLISECOND)

    def add_measurement(self, name: str, ordered: bool) -> source_wire.MeasurementId | None:
        """Starts to read a measurement; None when it is known already. `ordered`: answers are in the order of time."""
        if name in self.ledgers:
            return None
        begin = self.begin_at()
        self.goal_stored = False
        self.ledgers[name] = WatermarkLedger(
            self.state.watermarks.get(name, begin), Stride(ordered, self._align), self.config.page_size,
            self.config.overlap_ms * MILLISECOND, begin,
            Fingerprints(self.config.max_fingerprints, fingerprints_of(self.state.fingerprints.get(name, {}))))
        return source_wire.MeasurementId(self.index, name)

    @property
    def in_flight(self) -> int:
        """Pages ordered and not settled."""
        return sum(len(ledger.pages) for ledger in self.ledgers.values())

    @property
    def sending(self) -> bool:
        """Whether a page was read that Iggy has not confirmed."""
        return any(ledger.sending for ledger in self.ledgers.values())

    @property
    def at_goal(self) -> bool:
        """Whether all that existed at the start is in Iggy."""
        return self.discovered and not any(ledger.behind(self.goal) for ledger in self.ledgers.values())

    @property
    def caught_up(self) -> bool:
        """Whether the goal is reached and a stored state has it. Not necessarily the last state: changes go on."""
        return self.at_goal and (self.goal_stored or self.changes == self.stored)

    def orders(self, now: float) -> list[source_wire.Read]:
        """The next pages to read, of the measurements in turn, up to `pages_in_flight`."""
        orders: list[source_wire.Read] = []
        names = list(self.ledgers)
        room = self.config.pages_in_flight - self.in_flight
        for step in range(len(names)):
            if len(orders) >= room:
                self._turn = (self._turn + step) % len(names)
                break
            name = names[(self._turn + step) % len(names)]
            page = self.ledgers[name].next(self.target, now)
            if page is not None:
                orders.append(self.order(name, page))
        return orders

    def order(self, measurement: str, page: Page) -> source_wire.Read:
        """The message that orders a page."""
        overlap = None
        if self.config.overlap_ms:
            end = min(page.window.end, page.seen_until)
            known = self.ledgers[measurement].fingerprints.between(page.window.start, end)
            overlap = source_wire.Overlap(page.seen_until, known, page.remember_from)
        id_ = source_wire.PageId(self.epoch, source_wire.MeasurementId(self.index, measurement), page.seq, page.attempt)
        return source_wire.Read(id_, page.window, page.whole, overlap)

    def snapshot(self) -> SourceState:
        """The state as it is now."""
        for name, ledger in self.ledgers.items():
            self.state.watermarks[name] = ledger.watermark
            self.state.fingerprints[name] = ledger.fingerprints.known() if self.config.overlap_ms else {}
        return SourceState(self.state.identity, self.state.begun, dict(self.state.watermarks),
                           dict(self.state.fingerprints))
