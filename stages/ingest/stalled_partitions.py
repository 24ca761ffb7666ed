"""Partitions of a consumer group that belong to somebody else, and that nobody reads. Pure.

Server 0.9.0-edge.5 keeps the members of connections from before its restart: what they own waits for ever.
"""

from msgspec import Struct


class _Seen(Struct):
    stored: int
    since: float
    told: bool = False


class StalledPartitions:
    """Watches the partitions of one topic that other members own."""

    def __init__(self, after_seconds: float) -> None:
        """A partition with messages waiting whose stored offset stays for `after_seconds` is unread."""
        self._after = after_seconds
        self._seen: dict[int, _Seen] = {}

    def look(self, lags: dict[int, tuple[int, int]], now: float) -> list[int]:
        """Partition -> (stored offset, next offset of the log), of all that others own.

        Returns those that are unread, each once until it moves again. `now` in seconds, monotonic.
        """
        found = []
        self._seen = {partition: seen for partition, seen in self._seen.items() if partition in lags}
        for partition, (stored, end) in lags.items():
            seen = self._seen.get(partition)
            if seen is None or seen.stored != stored or stored + 1 >= end:
                self._seen[partition] = _Seen(stored, now)
            elif not seen.told and now - seen.since >= self._after:
                seen.told = True
                found.append(partition)
        return found
