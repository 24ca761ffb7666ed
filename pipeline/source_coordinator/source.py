"""One configured source: its measurements, watermarks and pages."""

from pipeline.config.source_names import alignment_of, measurement_of
from pipeline.config.source_schema import SourceConfig
from pipeline.points.fingerprints import Fingerprints, fingerprints_of
from pipeline.points.times import MAX_TIME, MIN_TIME, parse_time
from pipeline.points.windows import TimeWindow
from pipeline.source_coordinator.clock import corrected
from pipeline.source_coordinator.late import LateWatch
from pipeline.source_coordinator.ledger import Page, WatermarkLedger
from pipeline.source_coordinator.progress import Progress
from pipeline.source_coordinator.state import SourceState, begin_of
from pipeline.source_coordinator.state_store import StateStore
from pipeline.source_coordinator.stride import AHEAD, AHEAD_IN_PARALLEL, SEARCHED_WIDTH, WHOLE, Stride
from pipeline.wire import source as source_wire

MILLISECOND = 1_000_000
#: A measurement that has been idle for some time is asked again after this share of it.
IDLE_SHARE = 1 / 8
#: Measurements in one probe.
PROBED_AT_ONCE = 500
#: Windows that are counted once more by one order.
RECOUNTED_AT_ONCE = 500
#: Longest time until watermarks are stored that have only passed times without points, seconds: after a restart these
#: times would be read again, and nothing found.
QUIET_STORE_SECONDS = 30.0


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
        self._alignment = alignment_of(config)
        #: The first watermark that was moved back because it was in the future: measurement ("": none), from, to.
        self.moved_back = ("", 0, 0)
        # Watermarks up to `to` are right where points of the future are read.
        now_or_end = max(now, self._end) if self._reads_future else now
        if config.from_ == "now":
            state.begun = corrected(state.begun, now, MIN_TIME, trusted)
        for measurement, watermark in state.watermarks.items():
            right = corrected(watermark, now_or_end, self.begin_at(), trusted)
            state.watermarks[measurement] = self._alignment.floor(right)
            if state.watermarks[measurement] != watermark and not self.moved_back[0]:
                self.moved_back = measurement, watermark, state.watermarks[measurement]
        #: The target before the clock was set forward; None while it was not.
        self.trusted: int | None = None
        #: By measurement.
        self.ledgers: dict[str, WatermarkLedger] = {}
        #: Which points were late, by measurement.
        self.late: dict[str, LateWatch] = {}
        #: Measurements that may have a page to read, in turn; those that may have pages in flight; and those that have
        #: not reached the goal. The values mean nothing.
        self._waiting: dict[str, None] = {}
        self._busy: dict[str, None] = {}
        self._behind: dict[str, None] = {}
        #: Idle measurements may be probed.
        self.probes = False
        #: Measurement -> its points in the future, as last counted.
        self.future: dict[str, int] = {}
        #: Measurement -> why the server refuses it.
        self.refused: dict[str, str] = {}
        self.progress = Progress()
        #: An operator has paused it: nothing more is read, what is in flight goes on.
        self.paused = False
        #: Retention policy -> width of its shards, nanoseconds.
        self.shard_widths: dict[str, int] = {}
        self.discovered = False
        #: How often the state has changed, and how many of these changes are stored.
        self.changes = self.stored = 0
        #: When the first of the changes that are not stored happened that only say that there was nothing, monotonic;
        #: and whether there are others.
        self._quiet_since = 0.0
        self._urgent = False
        #: A state was stored in which the goal was reached.
        self.goal_stored = False
        #: When the next round of windows starts, and measurements are discovered again; seconds, monotonic.
        self.round_at = self.discovery_at = 0.0
        self.target = self.target_at(now)
        #: The source has caught up once everything before it is in Iggy: what existed when this coordinator started.
        self.goal = self._end if config.to else self.target

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
        return begin_of(self.config, self.state.begun)

    def add_measurement(self, name: str, ordered: bool, now: float = 0.0) -> source_wire.MeasurementId | None:
        """Starts to read a measurement; None when it is known already. `ordered`: answers are in the order of time.
        `now`: monotonic seconds."""
        if name in self.ledgers:
            return None
        begin = self.begin_at()
        watermark = self.state.watermarks.get(name, begin)
        self.goal_stored = False
        self.ledgers[name] = WatermarkLedger(
            watermark, self._new_stride(name, ordered, watermark), self.config.page_size,
            self.config.overlap_ms * MILLISECOND, begin,
            Fingerprints(self.config.max_fingerprints, fingerprints_of(self.state.fingerprints.get(name, {}))),
            self.config.parallel_windows, self.config.keep_order)
        self.ledgers[name].active_at = now
        self.late[name] = LateWatch(0 if self.config.query or self.config.to else
                                    self.config.late_check_ms * MILLISECOND, self.goal)
        self._waiting[name] = self._behind[name] = None
        return source_wire.MeasurementId(self.index, name)

    def _new_stride(self, name: str, ordered: bool, watermark: int) -> Stride:
        searches = not ordered and not self.config.query and self.target - watermark > SEARCHED_WIDTH
        widest = self.config.max_window_ms * MILLISECOND or WHOLE
        shard = self.shard_widths.get(measurement_of(self.config, name).policy, 0)
        return Stride(ordered, self._alignment, max(widest, self._alignment.width),
                      AHEAD_IN_PARALLEL if self.config.parallel_windows > 1 else AHEAD, searches,
                      shard if self.config.windows_by_shard else 0)

    @property
    def in_flight(self) -> int:
        """Pages ordered and not settled."""
        return sum(len(ledger.pages) for _, ledger in self.busy())

    @property
    def sending(self) -> bool:
        """Whether a page was read that Iggy has not confirmed."""
        return any(ledger.sending for _, ledger in self.busy())

    def busy(self) -> list[tuple[str, WatermarkLedger]]:
        """The measurements that have pages in flight."""
        for name in [name for name in self._busy if not self.ledgers[name].pages]:
            del self._busy[name]
        return [(name, self.ledgers[name]) for name in self._busy]

    @property
    def at_goal(self) -> bool:
        """Whether all that existed at the start is in Iggy."""
        while self._behind:
            name = next(iter(self._behind))
            if self.ledgers[name].behind(self.goal):
                return False
            del self._behind[name]
        return self.discovered

    @property
    def share(self) -> float:
        """How much of what existed at the start is in Iggy, by time, 0 to 1: the mean of all measurements."""
        if self.at_goal or not self.ledgers:
            return 1.0 if self.at_goal else 0.0
        return sum(ledger.share(self.goal) for ledger in self.ledgers.values()) / len(self.ledgers)

    @property
    def caught_up(self) -> bool:
        """Whether the goal is reached and a stored state has it. Not necessarily the last state: changes go on."""
        return self.at_goal and (self.goal_stored or self.changes == self.stored)

    @property
    def given_up(self) -> bool:
        """Whether the goal is reached but for measurements that the server refuses. A batch job ends then."""
        return self.discovered and bool(self.refused) and not any(
            ledger.behind(self.goal) for name, ledger in self.ledgers.items() if name not in self.refused)

    def orders(self, now: float) -> list[source_wire.Read]:
        """The next pages to read, of the measurements in turn, up to `pages_in_flight`."""
        orders: list[source_wire.Read] = []
        held, stuck = self._held()
        # What pages wait for has its place among them.
        for name, ledger in self.busy():
            if ledger.is_blocked and name not in self.refused:
                self._order_next(name, now, orders)
        most = self.config.pages_in_flight
        while self._waiting and held - stuck < most:
            name = next(iter(self._waiting))
            ledger = self.ledgers[name]
            # A large page waits until it fits in, and is then the next; one is always allowed.
            if held and held + ledger.pages_each > most and ledger.pages_each > 1:
                break
            del self._waiting[name]
            # A measurement that is stuck must not hold up the others, nor hold more.
            if ledger.pages and (held >= most or name in self.refused):
                continue
            if self._order_next(name, now, orders):
                held += ledger.pages_each
                if ledger.may_order:
                    self._waiting[name] = None
        return orders

    def _held(self) -> tuple[int, int]:
        """Pages, as configured, that Iggy has not confirmed; and of these, those of measurements that are refused."""
        held = stuck = 0
        for name, ledger in self.busy():
            own = ledger.held * ledger.pages_each
            held += own
            stuck += own if name in self.refused else 0
        return held, stuck

    def _order_next(self, name: str, now: float, orders: list[source_wire.Read]) -> bool:
        page = self.ledgers[name].next(self.target, now)
        if page is None:
            return False
        self._busy[name] = None
        orders.append(self.order(name, page))
        return True

    def want(self, name: str) -> None:
        """A measurement may have a page to read: something has happened to its pages."""
        self._waiting.setdefault(name)

    def start_round(self, now: float, wall: int) -> list[source_wire.Probe]:
        """Has everything up to the present read: `now` in monotonic seconds, `wall` in nanoseconds since 1970.

        Measurements without new rows for a time t are asked again after t * IDLE_SHARE, at most `idle_interval_ms`;
        returned are the probes of those.
        """
        self.target = max(self.target, self.target_at(wall))
        windows: list[tuple[str, TimeWindow]] = []
        for name, ledger in self.ledgers.items():
            pause = min((now - ledger.active_at) * IDLE_SHARE, self.config.idle_interval_ms / 1000)
            if now < ledger.asked_at + pause and name not in self._behind:
                continue
            if ledger.pages or ledger.probing is not None:
                self.want(name)
                continue
            ledger.asked_at = now
            window = ledger.probe(self.target) if self.probes else None
            if window is None:
                self.want(name)
            else:
                windows.append((name, window))
        return [source_wire.Probe(self.epoch, self.index, windows[at:at + PROBED_AT_ONCE])
                for at in range(0, len(windows), PROBED_AT_ONCE)]

    def probed(self, message: source_wire.Probed, now: float) -> None:
        """Handles the answer to a probe."""
        for name, window in message.empty:
            if name in self.ledgers and self.ledgers[name].probed(window):
                self.changed(now, quiet=True)
                # What is in the overlap is read again.
                end = window.end - self.config.overlap_ms * MILLISECOND
                self.late[name].add(TimeWindow(window.start, max(window.start, end)), 0)
        for name in message.others:
            if name in self.ledgers and self.ledgers[name].probed(None):
                self.want(name)

    def page_read(self, message: source_wire.PageRead, page: Page, window: TimeWindow) -> None:
        """A page was read, whose window was `window` before."""
        end, rows = message.end, None if message.end < window.end else message.rows
        if self.config.overlap_ms:
            end, rows = min(end, page.remember_from), None
        self.late[message.id.measurement.name].page_read(page.seq, page.attempt, TimeWindow(window.start, end), rows)

    def page_confirmed(self, message: source_wire.PageConfirmed) -> None:
        """Iggy has a page."""
        self.late[message.id.measurement.name].page_confirmed(message.id.seq, message.id.attempt, message.settled)

    def recounts(self, wall: int) -> list[source_wire.Recount]:
        """The windows that are to be counted once more at `wall`, nanoseconds since 1970."""
        windows = [(name, *due) for name, watch in self.late.items() if (due := watch.due(wall)) is not None]
        return [source_wire.Recount(self.epoch, self.index, windows[at:at + RECOUNTED_AT_ONCE])
                for at in range(0, len(windows), RECOUNTED_AT_ONCE)]

    def recounted(self, message: source_wire.Recounted) -> dict[str, tuple[int, TimeWindow]]:
        """Measurement -> its late points, and the window in which they are."""
        found = {}
        for name, window, rows in message.counts:
            if name in self.late and (late := self.late[name].counted(window, rows)):
                found[name] = late, window
        for name in message.uncountable:
            if name in self.late:
                self.late[name].stop()
        return found

    def end_probes(self) -> None:
        """The process that probes was replaced: what it was asked is read."""
        for name, ledger in self.ledgers.items():
            if ledger.probed(None):
                self.want(name)

    def changed(self, now: float, quiet: bool = False) -> None:
        """The state has changed. `quiet`: it only says that there was nothing to send."""
        if self.changes == self.stored:
            self._quiet_since = now
        self.changes += 1
        self._urgent |= not quiet

    def is_store_due(self, now: float, draining: bool) -> bool:
        """Whether the state is to be stored now. What happens while it is stored is another change."""
        due = self.changes != self.stored and (
            self._urgent or draining or now - self._quiet_since >= QUIET_STORE_SECONDS
            or not self.goal_stored and self.at_goal)
        if due:
            self._urgent = False
        return due

    def order(self, measurement: str, page: Page) -> source_wire.Read:
        """The message that orders a page."""
        overlap = None
        if self.config.overlap_ms:
            end = min(page.window.end, page.seen_until)
            known = self.ledgers[measurement].fingerprints.between(page.window.start, end)
            overlap = source_wire.Overlap(page.seen_until, known, page.remember_from)
        id_ = source_wire.PageId(self.epoch, source_wire.MeasurementId(self.index, measurement), page.seq, page.attempt,
                                 page.round, page.follows)
        return source_wire.Read(id_, page.window, page.whole, overlap, page.rows, page.size)

    def snapshot(self) -> SourceState:
        """The state as it is now."""
        for name, ledger in self.ledgers.items():
            self.state.watermarks[name] = ledger.watermark
            self.state.fingerprints[name] = ledger.fingerprints.known() if self.config.overlap_ms else {}
        return SourceState(self.state.identity, self.state.begun, dict(self.state.watermarks),
                           dict(self.state.fingerprints))
