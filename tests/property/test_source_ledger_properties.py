"""The ledger of pages under any order of answers, losses and restarts: nothing before the watermark is missing."""

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.points.fingerprints import Fingerprint, Fingerprints
from pipeline.points.windows import TimeWindow, cut_before
from pipeline.source_coordinator.ledger import Page, WatermarkLedger
from pipeline.source_coordinator.stride import AHEAD, AHEAD_IN_PARALLEL, Stride
from pipeline.wire import source as source_wire
from stages.produce.pages import Page as PageToSend
from stages.produce.pages import PageQueue

PAGE_SIZE = 3
MEASUREMENT = source_wire.MeasurementId(0, "m")


class World:
    """A database whose points come in the course of time, stages that lose pages, and an Iggy."""

    def __init__(self, points: dict[int, int], ordered: bool, overlap: int, dice: random.Random, parallel: int = 1,
                 in_order: bool = True) -> None:
        """`points`: number -> time; each is written when the clock passes its time."""
        self.parallel = parallel
        self.in_order = in_order
        #: Times in the order in which they were sent.
        self.times: list[int] = []
        self.points = points
        self.ordered = ordered
        self.overlap = overlap
        self.dice = dice
        #: Point and content -> how often it was sent.
        self.iggy: dict[tuple[int, int], int] = {}
        self.contents: dict[int, int] = dict.fromkeys(points, 0)
        self.stored: tuple[int, list[Fingerprint]] = (0, [])
        self.clock = 0
        self.start()

    def start(self) -> None:
        """A new coordinator begins with what is stored."""
        mark, prints = self.stored
        stride = Stride(self.ordered, ahead=AHEAD_IN_PARALLEL if self.parallel > 1 else AHEAD)
        self.ledger = WatermarkLedger(mark, stride, PAGE_SIZE, self.overlap, 0, Fingerprints(1_000, prints),
                                      self.parallel, self.in_order)
        self.start_produce()
        #: Pages that are being read, and pages read: (page number, attempt, end, points, prints).
        self.reading: list[Page] = []
        self.read: list[tuple[int, int, int, list[tuple[int, int]], list[Fingerprint]]] = []
        #: Answers that the coordinator has not heard of yet; what Iggy confirms may overtake them.
        self.unheard: list[tuple[int, int, int, int, int]] = []
        self.orders: dict[tuple[int, int], tuple[TimeWindow, bool, int, int, bytes, int]] = {}
        self.places: dict[tuple[int, int], tuple[int, tuple[int, int]]] = {}
        #: The last probe, and whether it found nothing; its answer may come late, or never.
        self.probe: tuple[TimeWindow, bool] | None = None

    def start_produce(self) -> None:
        self.queue = PageQueue(self.in_order)
        self.queue.position = self.ledger.position
        #: What the pages in the queue contain, by number and attempt.
        self.queued: dict[tuple[int, int], tuple[list[tuple[int, int]], list[Fingerprint]]] = {}

    def order(self, page: Page) -> None:
        self.places[page.seq, page.attempt] = page.round, page.follows
        known = {one.point: one.content for one in self.ledger.fingerprints.prints()}
        self.reading.append(page)
        self.orders[page.seq, page.attempt] = (page.window, page.whole, page.seen_until, page.remember_from,
                                               repr(known).encode(), max(PAGE_SIZE, page.rows))

    def answer(self, seq: int, attempt: int) -> None:
        """The query stage's part."""
        window, whole, seen_until, remember_from, known_text, size = self.orders[seq, attempt]
        known: dict[int, int] = eval(known_text)
        found = sorted((time, self.dice.random(), number) for number, time in self.points.items()
                       if window.start <= time < window.end and time <= self.clock)
        end = window.end
        if len(found) > size and not whole:
            if not self.ordered:
                self.reorder(self.ledger.overflow(seq, attempt, one_time=False, first=self.dice.choice(found)[0]))
                return
            if found[0][0] == found[size][0]:
                self.reorder(self.ledger.overflow(seq, attempt, one_time=True, first=found[0][0]))
                return
            end = cut_before(window, found[size][0])
            found = [one for one in found if one[0] < end]
        self.unheard.append((seq, attempt, end, len(found), found[0][0] if found else window.start))
        messages, prints = [], []
        for time, _, number in found:
            content = self.contents[number]
            if self.overlap and time < seen_until and known.get(number) == content:
                continue
            messages.append((number, content))
            if self.overlap and time >= remember_from:
                prints.append(Fingerprint(time, number, content))
        self.read.append((seq, attempt, end, messages, prints))

    def reorder(self, page: Page | None) -> None:
        if page is not None:
            self.order(page)

    def send(self, seq: int, attempt: int, end: int, messages: list[tuple[int, int]],
             prints: list[Fingerprint]) -> None:
        """The produce stage's part."""
        id_ = source_wire.PageId(0, MEASUREMENT, seq, attempt, *self.places[seq, attempt])
        self.queued[seq, attempt] = messages, prints
        self.queue.add(PageToSend(source_wire.Messages(id_, end, 0, 0, [], b""), b""))
        while (page := self.queue.pop()) is not None:
            own, prints = self.queued[page.head.id.seq, page.head.id.attempt]
            if not self.queue.was_sent(page):
                for message in own:
                    self.iggy[message] = self.iggy.get(message, 0) + 1
                    self.times.append(self.points[message[0]])
            self.queue.sent(page)
            self.ledger.confirm(page.head.id.seq, page.head.id.attempt, prints)

    def step(self, action: str) -> None:
        """One thing happens."""
        if action == "clock":
            self.clock += self.dice.randrange(1, 12)
        elif action == "next":
            page = self.ledger.next(self.clock)
            if page is not None:
                self.order(page)
        elif action == "probe":
            window = self.ledger.probe(self.clock)
            if window is not None:
                self.probe = window, not any(window.start <= time < window.end and time <= self.clock
                                             for time in self.points.values())
        elif action == "probed" and self.probe is not None:
            window, empty = self.probe
            self.ledger.probed(window if empty else None)
        elif action == "lose query":
            self.ledger.probed(None)
        elif action == "answer" and self.reading:
            page = self.reading.pop(self.dice.randrange(len(self.reading)))
            self.answer(page.seq, page.attempt)
        elif action == "hear" and self.unheard:
            self.ledger.page_read(*self.unheard.pop(0))
        elif action == "send" and self.read:
            self.send(*self.read.pop(self.dice.randrange(len(self.read))))
        elif action == "lose stages":
            self.reading.clear()
            self.read.clear()
            self.start_produce()
            # What it said last may be lost, too.
            del self.unheard[self.dice.randrange(len(self.unheard) + 1):]
            for page in self.ledger.to_reread(0.0):
                self.order(page)
        elif action == "lose converters":
            self.read.clear()
            for page in self.ledger.to_reread(0.0, read_only=True):
                self.order(page)
        elif action == "lose produce":
            self.start_produce()
            for page in self.ledger.to_reread(0.0, read_only=True):
                self.order(page)
        elif action == "store":
            self.stored = self.ledger.watermark, self.ledger.fingerprints.prints()
        elif action == "lose coordinator":
            self.start()
        self.check()

    def check(self) -> None:
        missing = [number for number, time in self.points.items()
                   if time < self.ledger.watermark and not any(n == number for n, _ in self.iggy)]
        assert not missing, f"before the watermark {self.ledger.watermark}, and not in Iggy: {missing}"

    def finish(self) -> None:
        """All that is there is read to the end."""
        self.clock += 1_000
        self.step("lose query")
        for _ in range(3_000):
            if not self.ledger.behind(self.clock):
                return
            for action in ("next", "answer", "send", "hear"):
                self.step(action)
            if not (self.reading or self.read or self.unheard):
                # A page whose answer is heard of only after it was lost: it is overdue after a while.
                for page in self.ledger.to_reread(0.0, read_only=True):
                    self.order(page)
        raise AssertionError("it does not come to an end")


LOSSES = ["lose stages", "lose converters", "lose coordinator", "lose query", "lose produce"]
CALM = ["clock", "next", "next", "answer", "answer", "hear", "hear", "send", "send", "store", "probe", "probed"]
POINTS = st.dictionaries(st.integers(0, 40), st.integers(0, 60), max_size=30)
#: Windows that are read at a time, and whether they are sent in order.
WINDOWS = st.tuples(st.integers(1, 4), st.booleans())


@given(POINTS, st.booleans(), st.sampled_from([0, 10]), st.lists(st.sampled_from(CALM + LOSSES), max_size=80),
       st.randoms(use_true_random=False), WINDOWS)
def test_nothing_is_lost_whatever_dies(points: dict[int, int], ordered: bool, overlap: int, actions: list[str],
                                       dice: random.Random, windows: tuple[int, bool]) -> None:
    world = World(points, ordered, overlap, dice, *windows)
    mark = 0
    for action in actions:
        world.step(action)
        assert action == "lose coordinator" or world.ledger.watermark >= mark
        mark = world.ledger.watermark
    world.finish()
    assert {number for number, _ in world.iggy} == set(points)


@given(POINTS, st.booleans(), st.sampled_from([0, 10]), st.lists(st.sampled_from(CALM), max_size=80),
       st.randoms(use_true_random=False), WINDOWS)
def test_without_losses_every_point_is_sent_once_and_in_order(
        points: dict[int, int], ordered: bool, overlap: int, actions: list[str], dice: random.Random,
        windows: tuple[int, bool]) -> None:
    world = World(points, ordered, overlap, dice, *windows)
    for action in actions:
        world.step(action)
    world.finish()
    assert world.iggy == {(number, 0): 1 for number in points}
    assert overlap or not windows[1] or world.times == sorted(world.times)


@given(POINTS, st.booleans(), st.lists(st.tuples(st.sampled_from([*CALM, "change"]), st.integers(0, 40)), max_size=60),
       st.randoms(use_true_random=False), WINDOWS)
def test_what_changes_within_the_overlap_is_sent_again_and_once(
        points: dict[int, int], ordered: bool, actions: list[tuple[str, int]], dice: random.Random,
        windows: tuple[int, bool]) -> None:
    world = World(points, ordered, 1_000_000, dice, *windows)
    for action, number in actions:
        if action == "change" and number in points and points[number] <= world.clock:
            world.contents[number] += 1
        elif action != "change":
            world.step(action)
    world.finish()
    world.clock += 1
    world.finish()
    latest: Any = {number: max(content for n, content in world.iggy if n == number) for number in points}
    assert latest == world.contents
    assert set(world.iggy.values()) <= {1}
