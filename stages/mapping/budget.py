"""The memory that all caches of one encoder process may take together, in bytes. Pure.

Keys of the caches come from payloads: devices, measurements, field names. A cache that is told apart from the others by
a count alone holds any number of bytes. When they would take too much together, the largest is emptied: what is needed
of it is made again.
"""

import weakref
from collections.abc import Callable
from typing import Final

#: Where no configuration says otherwise; see `pipeline.encoder_cache_bytes`.
DEFAULT_BYTES: Final = 128_000_000
#: What an entry of a dict costs beside its texts, and a text beside its characters, bytes, about.
ENTRY_BYTES: Final = 150
TEXT_BYTES: Final = 60
#: Most bytes of a character.
CHARACTER_BYTES: Final = 4
#: An entry that alone takes more than this share of the budget is not kept.
MOST_OF_ALL: Final = 8


def cost_of(*texts: str) -> int:
    """Bytes of an entry with these texts, about."""
    return ENTRY_BYTES + sum([TEXT_BYTES + len(text) * (1 if text.isascii() else CHARACTER_BYTES) for text in texts])


class Budget:
    """What all caches of one process share. Not thread-safe."""

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        """`limit` in bytes."""
        self.limit = limit
        #: Bytes of all caches, as far as they are counted.
        self.used = 0
        #: Of caches that are still used by anybody.
        self._shares: weakref.WeakSet[Share] = weakref.WeakSet()

    def share(self, clear: Callable[[], object]) -> "Share":
        """The share of a cache that `clear` empties. The cache keeps it, and it ends with the cache."""
        share = Share(self, clear)
        self._shares.add(share)
        return share

    def make_room(self, cost: int) -> None:
        """Empties the largest caches until `cost` bytes more are within the limit."""
        while self.used + cost > self.limit:
            largest = max(self._shares, key=lambda share: share.used)
            if not largest.used:
                return
            largest.empty()


class Share:
    """What one cache takes."""

    __slots__ = ("__weakref__", "_budget", "_clear", "used")

    def __init__(self, budget: Budget, clear: Callable[[], object]) -> None:
        self._budget = budget
        self._clear = clear
        self.used = 0

    def takes(self, cost: int) -> bool:
        """Counts an entry of `cost` bytes that is about to be kept. False: it is too large to be kept.

        May empty this cache, or another, before.
        """
        budget = self._budget
        if cost > budget.limit // MOST_OF_ALL:
            return False
        if budget.used + cost > budget.limit:
            budget.make_room(cost)
        self.used += cost
        budget.used += cost
        return True

    def empty(self) -> None:
        """Empties the cache."""
        self._clear()
        self._budget.used -= self.used
        self.used = 0

    def __del__(self) -> None:
        self._budget.used -= self.used
