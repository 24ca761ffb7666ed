"""The pages of one measurement, in the order in which they are to be sent. Pure."""

from collections import OrderedDict, deque

from msgspec import Struct

from pipeline.wire import source as source_wire

#: Pages of a measurement that may wait for their turn.
MAX_WAITING = 2_000
#: Sent pages of a measurement that are remembered, so that they are not sent again.
REMEMBERED_PAGES = 1_000


class Page(Struct):
    """A page, or a part of one, that waits to be sent, or is being sent."""

    head: source_wire.Messages
    #: Messages and the hashes of their series, in MessagePack.
    bulk: bytes


class _Parts(Struct):
    """What waits of one attempt at a page."""

    attempt: int
    #: In order.
    waiting: deque[Page]
    #: Parts that have come.
    received: int = 0


class PageQueue:
    """The pages of one measurement: in the order of time, or as they come. Those that were sent before are skipped.

    The parts of a page are sent as they come, one after the other.
    """

    def __init__(self, in_order: bool = True) -> None:
        #: Where the last page ends that was sent; None until the coordinator has sent it.
        self.position: source_wire.Position | None = None
        self._in_order = in_order
        #: By number.
        self._waiting: dict[int, _Parts] = {}
        #: Bytes of what waits.
        self.size = 0
        #: Number of each page in Iggy -> the attempt at it, and the end of its window.
        self._sent: OrderedDict[int, tuple[int, int]] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether no more pages are accepted."""
        return len(self._waiting) > MAX_WAITING

    def add(self, page: Page) -> None:
        """Adds a page, or its next part. Replaces an older attempt, which nobody waits for, and never a newer one."""
        seq, attempt = page.head.id.seq, page.head.id.attempt
        held = self._waiting.get(seq)
        if attempt < max(held.attempt if held else 0, self._sent.get(seq, (0, 0))[0]):
            return
        if page.head.part == 0:
            self.size -= sum(len(one.bulk) for one in held.waiting) if held else 0
            held = self._waiting[seq] = _Parts(attempt, deque())
        # Without an earlier part the page is not confirmed, and so read again.
        if held is not None and attempt == held.attempt and page.head.part == held.received:
            held.waiting.append(page)
            held.received += 1
            self.size += len(page.bulk)

    def pop(self) -> Page | None:
        """The next page, or part, whose turn it is, if any: of the page after the last, or of an earlier one that was
        read again."""
        if self.position is None:
            return None
        seq = min((seq for seq, parts in self._waiting.items() if parts.waiting and self._is_next(parts.waiting[0])),
                  default=None)
        if seq is None:
            return None
        page = self._waiting[seq].waiting.popleft()
        self.size -= len(page.bulk)
        if page.head.is_last:
            del self._waiting[seq]
        return page

    def _is_next(self, page: Page) -> bool:
        return not self._in_order or page.head.id.follows == self.position or page.head.id.seq in self._sent

    def was_sent(self, page: Page) -> bool:
        """Whether Iggy has this page already, with the same window."""
        return page.head.id.seq in self._sent and self._sent[page.head.id.seq][1] == page.head.end

    def sent(self, page: Page) -> None:
        """Iggy has confirmed a page, or a part, that `pop` returned."""
        if not page.head.is_last:
            return
        id_, end = page.head.id, page.head.end
        if self.position == id_.follows or id_.seq in self._sent and self.position == (
                id_.round, self._sent[id_.seq][1]):
            self.position = id_.round, end
        self._sent[id_.seq] = id_.attempt, end
        if len(self._sent) > REMEMBERED_PAGES:
            self._sent.popitem(last=False)
