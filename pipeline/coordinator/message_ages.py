"""How old the messages are that are not committed. Pure.

Ages are those of the newest message of each batch, by the clock of the Iggy server: the first message of a batch may be
older by a flush interval.
"""

from collections.abc import Callable

from pipeline.wire.sink import Dispatched, Partition, Range


class MessageAges:
    """Iggy's times of the batches that were dispatched and not committed."""

    def __init__(self) -> None:
        #: By partition, in the order of offsets: last offset of a batch -> time of that message, microseconds.
        self._times: dict[Partition, dict[int, int]] = {}
        #: Time of the newest message that was dispatched, by partition.
        self._newest: dict[Partition, int] = {}

    def dispatched(self, message: Dispatched) -> None:
        """A batch was dispatched. After a truncation its offsets are lower than those of earlier batches."""
        range_ = message.range
        times = self._times.setdefault(range_.partition, {})
        if times and range_.last <= next(reversed(times)):
            times.clear()
        if message.time:
            times[range_.last] = self._newest[range_.partition] = message.time

    def age(self, range_: Range, now: float) -> float | None:
        """Seconds since Iggy stored the newest message of a range, at `now` (seconds since 1970). None: not known."""
        time = self._times.get(range_.partition, {}).get(range_.last)
        return None if time is None else max(0.0, now - time / 1e6)

    def oldest(self, partition: Partition, committed: int) -> int:
        """Time of the oldest message that is not committed, microseconds since 1970; 0 if it is not known.

        Forgets those that are. Where all that was dispatched is committed, the oldest one is newer than that.
        """
        times = self._times.get(partition, {})
        while times and (first := next(iter(times))) <= committed:
            del times[first]
        return next(iter(times.values())) if times else self._newest.get(partition, 0)

    def keep(self, known: Callable[[Partition], bool]) -> None:
        """Forgets partitions that are not known any more."""
        for partition in [partition for partition in self._newest if not known(partition)]:
            del self._newest[partition]
            self._times.pop(partition, None)
