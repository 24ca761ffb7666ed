"""Partitions of a consumer group that belong to another member and are not read. Pure.

Server 0.9.0-edge.5 keeps the members of connections from before its restart: their partitions are never read.
"""

from msgspec import Struct


class _Seen(Struct):
    stored: int
    since: float
    reported: bool = False


class StalledPartitions:
    """Watches the partitions of one topic that other members own."""

    def __init__(self, after_seconds: float) -> None:
        """A partition with waiting messages whose stored offset does not change for `after_seconds` is stalled."""
        self._after = after_seconds
        self._seen: dict[int, _Seen] = {}

    def update(self, lags: dict[int, tuple[int, int]], now: float) -> list[int]:
        """Takes partition -> (stored offset, next offset of the log) of all partitions that others own.

        Returns the stalled ones, each once until its offset changes. `now` in seconds, monotonic.
        """
        stalled = []
        self._seen = {partition: seen for partition, seen in self._seen.items() if partition in lags}
        for partition, (stored, end) in lags.items():
            seen = self._seen.get(partition)
            if seen is None or seen.stored != stored or stored + 1 >= end:
                self._seen[partition] = _Seen(stored, now)
            elif not seen.reported and now - seen.since >= self._after:
                seen.reported = True
                stalled.append(partition)
        return stalled

    @property
    def stalled(self) -> list[int]:
        """The partitions that are stalled now."""
        return [partition for partition, seen in self._seen.items() if seen.reported]
