"""The pages of one measurement, in the order in which they are to be sent. Pure."""

from collections import OrderedDict

from msgspec import Struct

from pipeline.wire import source as source_wire

#: Pages of a measurement that may wait for their turn.
MAX_WAITING = 2_000
#: Sent pages of a measurement that are remembered, so that they are not sent again.
REMEMBERED_PAGES = 1_000


class Page(Struct):
    """A page that waits to be sent, or is being sent."""

    head: source_wire.Messages
    #: Messages and the hashes of their series, in MessagePack.
    bulk: bytes


class PageQueue:
    """Orders the pages of one measurement by their number, and skips those that were sent before."""

    def __init__(self) -> None:
        #: Number of the next page; None until the coordinator has sent it.
        self.next: int | None = None
        self._waiting: dict[int, Page] = {}
        #: Number of each page in Iggy -> the end of its window.
        self._sent: OrderedDict[int, int] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether no more pages are accepted."""
        return len(self._waiting) > MAX_WAITING

    def add(self, page: Page) -> None:
        """Adds a page. Replaces an older attempt, which nobody waits for, and never a newer one."""
        seq, attempt = page.head.id.seq, page.head.id.attempt
        earlier = self._waiting.get(seq)
        if earlier is None or earlier.head.id.attempt <= attempt:
            self._waiting[seq] = page

    def pop(self) -> Page | None:
        """The next page whose turn it is, if any: page `next`, or an earlier one that was read again."""
        if self.next is None:
            return None
        seq = min((seq for seq in self._waiting if seq <= self.next), default=None)
        return None if seq is None else self._waiting.pop(seq)

    def was_sent(self, page: Page) -> bool:
        """Whether Iggy has this page already, with the same window."""
        return self._sent.get(page.head.id.seq) == page.head.end

    def sent(self, page: Page) -> None:
        """Iggy has confirmed a page that `pop` returned."""
        seq = page.head.id.seq
        self._sent[seq] = page.head.end
        if len(self._sent) > REMEMBERED_PAGES:
            self._sent.popitem(last=False)
        self.next = max(self.next or 0, seq + 1)
