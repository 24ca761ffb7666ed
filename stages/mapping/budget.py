"""The memory that all caches of one encoder process may take together, in bytes. Pure.

Keys of the caches come from payloads: devices, measurements, field names, so a limit on the number of entries would not
limit their bytes. When all caches together would exceed the budget, the largest is emptied and filled again as needed.
"""

import weakref
from collections.abc import Callable
from typing import Final

#: The default of `pipeline.encoder_cache_bytes`.
DEFAULT_BYTES: Final = 128_000_000
#: Approximate bytes of a dict's entry beside its texts, and of a text beside its characters.
ENTRY_BYTES: Final = 150
TEXT_BYTES: Final = 60
#: Most bytes of a character.
CHARACTER_BYTES: Final = 4
#: An entry that alone takes more than this share of the budget is not kept.
MOST_OF_ALL: Final = 8


def cost_of(*texts: str) -> int:
    """Approximate bytes of an entry with these texts."""
    return ENTRY_BYTES + sum([TEXT_BYTES + len(text) * (1 if text.isascii() else CHARACTER_BYTES) for text in texts])


class Budget:
    """The memory that all caches of one process share. Not thread-safe."""

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        """`limit` in bytes."""
        self.limit = limit
        #: Approximate bytes of all caches.
        self.used = 0
        #: The shares of caches that still exist.
        self._shares: weakref.WeakSet[Share] = weakref.WeakSet()

    def share(self, clear: Callable[[], object]) -> "Share":
        """Makes the share of a cache that `clear` empties. The cache owns it, and it ends with the cache."""
        share = Share(self, clear)
        self._shares.add(share)
        return share

    def make_room(self, cost: int) -> None:
        """Empties the largest caches until `cost` more bytes are within the limit."""
        while self.used + cost > self.limit:
            largest = max(self._shares, key=lambda share: share.used)
            if not largest.used:
                return
            largest.empty()


class Share:
    """The memory of one cache."""

    __slots__ = ("__weakref__", "_budget", "_clear", "used")

    def __init__(self, budget: Budget, clear: Callable[[], object]) -> None:
        self._budget = budget
        self._clear = clear
        self.used = 0

    def takes(self, cost: int) -> bool:
        """Counts an entry of `cost` bytes that is about to be stored. Returns False if it is too large to be stored.

        May empty this cache, or another, first.
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
