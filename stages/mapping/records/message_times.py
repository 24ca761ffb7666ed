"""Makes the times that messages have from Iggy distinct, by their places in the log.

Iggy's times are whole microseconds and equal for many messages: the server gives one time to a whole send, and a
producer makes several messages within a microsecond. Points of one series with equal times are one point. With
nanoseconds, a time therefore carries the message's place in its lower digits:

    time * 1000 + 10 * (offset mod 100,000) + (partition + 5 * (offset div 100,000)) mod 10

It depends only on the message's time, offset and partition: however often a message is read again, and in whichever
batch, it becomes the same point. Guarantees:

* A time is moved by less than a millisecond.
* If times do not go back within a partition (a server's never do while it runs), two of its messages have the same time
  only if more than 100,000 messages lie between them and Iggy's times are less than 1 ms apart. The messages of one
  send, up to 200,000, are therefore distinct. Reason: the digits from the tens up grow with the offset through each
  100,000 messages; the last digit distinguishes each 100,000 from the next, since a whole microsecond does not change
  it.
* Times keep the order of a partition's messages, except at each 100,000th offset, where messages of the same
  millisecond change places.
* The last digit also distinguishes partitions: two have no time in common if their numbers differ by anything but
  multiples of 5; if they differ by 5, only if one has an odd number of 100,000 messages more.

At coarser precisions, times are Iggy's own, rounded down.
"""

from collections.abc import Sequence
from typing import Final

from stages.mapping.records import timestamps

#: Messages after which the lower digits repeat.
CYCLE: Final = 100_000
#: Nanoseconds between two neighbouring messages.
STEP: Final = 10
#: The most that is added to a time, nanoseconds.
MAX_TIE_BREAKER: Final = CYCLE * STEP - 1


def tie_breaker(partition: int, offset: int) -> int:
    """The nanoseconds that a message's place adds to its time: 0 to 999,999."""
    cycle, place = divmod(offset, CYCLE)
    return place * STEP + (partition + 5 * cycle) % STEP


def message_time(micros: int, partition: int, offset: int, precision: str) -> int:
    """A message's time, microseconds since 1970, in the precision written. Raises BadTimestamp out of InfluxDB's range.
    """
    if precision != "ns":
        return timestamps.to_precision(timestamps.check_range(micros * 1_000), precision)
    return timestamps.check_range(micros * 1_000 + tie_breaker(partition, offset))


def message_times(micros: Sequence[int], partition: int, offsets: Sequence[int] | int, precision: str) -> Sequence[int]:
    """The same for a batch. `offsets` is the first one if they are contiguous. Raises BadTimestamp."""
    timestamps.check_range(min(micros) * 1_000)
    timestamps.check_range(max(micros) * 1_000 + MAX_TIE_BREAKER)
    if precision != "ns":
        unit = timestamps.UNIT_NS[precision]
        return [time * 1_000 // unit for time in micros]
    if isinstance(offsets, int):
        return [time * 1_000 + tie for time, tie in zip(micros, _tie_breakers(partition, offsets, len(micros)),
                                                        strict=True)]
    return [time * 1_000 + offset % CYCLE * STEP + (partition + offset // CYCLE * 5) % STEP
            for time, offset in zip(micros, offsets, strict=True)]


def _tie_breakers(partition: int, first: int, count: int) -> Sequence[int]:
    """The tie-breakers of `count` messages with contiguous offsets from `first`."""
    begin = tie_breaker(partition, first)
    in_cycle = CYCLE - first % CYCLE
    if count <= in_cycle:
        return range(begin, begin + count * STEP, STEP)
    return [*range(begin, begin + in_cycle * STEP, STEP), *_tie_breakers(partition, first + in_cycle, count - in_cycle)]
