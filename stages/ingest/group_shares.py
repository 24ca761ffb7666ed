"""Whether the partitions of a consumer group are shared out evenly, and who sees to it when they are not. Pure.

Server 0.9.0-edge.5 gives partitions to a member that joins, and to no other: when two join at once, the shares stay
uneven until a member leaves; then it deals all of them out anew.
"""

from collections.abc import Collection

#: Uneven shares have to stay the same for so long first: longer than a hand-over takes, whose partition is counted to
#: the old owner, at most 30 s (the server's `consumer_group.rebalancing_timeout`). Seconds.
UNEVEN_SECONDS = 45.0
#: If they are uneven again, the next time is so many times as long, and at most so long, seconds.
PAUSE_FACTOR, MAX_UNEVEN_SECONDS = 2.0, 3_600.0


class GroupShares:
    """Watches the shares of one topic."""

    def __init__(self, uneven_seconds: float = UNEVEN_SECONDS) -> None:
        self._first = self._wait = uneven_seconds
        self._seen: list[list[int]] = []
        self._since = 0.0

    def should_rejoin(self, shares: Collection[Collection[int]], own: Collection[int], now: float) -> bool:
        """Whether the member that has the partitions `own` has to leave the group and join it again.

        `shares`: the partitions of each member. One member alone finds that it has to: the one with most partitions, of
        these the one with the lowest. `now` in seconds, monotonic.
        """
        found = sorted(map(sorted, shares))
        sizes = list(map(len, found))
        if not sizes or max(sizes) - min(sizes) < 2:
            self._seen, self._wait = [], self._first
            return False
        if found != self._seen:
            self._seen, self._since = found, now
            return False
        if now - self._since < self._wait:
            return False
        self._since = now
        self._wait = min(self._wait * PAUSE_FACTOR, MAX_UNEVEN_SECONDS)
        largest = max(found, key=lambda share: (len(share), -share[0] if share else 0))
        return bool(set(own) & set(largest))
