"""Whether Iggy's retention is about to delete messages before they are written. Pure.

Iggy deletes the oldest messages of a topic: those older than its `message_expiry`, and as many as its `max_topic_size`
demands. It deletes whole segments, so the times here are the earliest ones.
"""

from msgspec import Struct

#: A topic of which less than this part of `max_topic_size` is used loses nothing by it yet.
FULL = 0.9
#: It is warned of when it may happen within a quarter of `message_expiry`, but within these bounds; and within so long
#: for a topic that is limited by its size only; seconds.
WARN_SHARE = 0.25
WARN_SECONDS, MAX_WARN_SECONDS = 60.0, 86_400.0
SIZE_WARN_SECONDS = 3_600.0
#: Growth of the age of the oldest message, seconds a second, that does not count as falling behind.
STEADY = 0.01


class Retention(Struct, frozen=True):
    """What a topic keeps; None where there is no such limit."""

    #: Seconds.
    expiry: float | None = None
    bytes: int | None = None

    @property
    def has_limits(self) -> bool:
        """Whether anything is ever deleted."""
        return self.expiry is not None or self.bytes is not None

    @property
    def warn_seconds(self) -> float:
        """What happens within this time is warned of."""
        if self.expiry is None:
            return SIZE_WARN_SECONDS
        return min(max(self.expiry * WARN_SHARE, WARN_SECONDS), MAX_WARN_SECONDS)


class Look(Struct, frozen=True):
    """What was found of a partition at one moment."""

    #: Seconds, monotonic.
    at: float
    #: Offset of the oldest message in the log, of the last one that is committed, and of the last one in the log.
    first: int
    committed: int
    end: int
    #: Age of the oldest message that is not committed, seconds.
    age: float
    #: Bytes of the topic, all partitions.
    size: int
    #: Iggy's time of that message, microseconds since 1970.
    oldest: int = 0


def overtaken_in(retention: Retention, before: Look | None, now: Look) -> float | None:
    """Seconds until messages that are not committed may be deleted, if all goes on as between two looks.

    None: that is not to be expected, or not known yet. 0: it may happen at any moment, or has happened.
    """
    if now.first > now.committed + 1:
        return 0.0
    found = [seconds for seconds in (_by_age(retention, before, now), _by_size(retention, before, now))
             if seconds is not None]
    return min(found, default=None)


def _by_age(retention: Retention, before: Look | None, now: Look) -> float | None:
    if retention.expiry is None:
        return None
    left = retention.expiry - now.age
    if left <= 0:
        return 0.0
    if before is None or now.at <= before.at:
        return None
    growth = (now.age - before.age) / (now.at - before.at)
    return left / growth if growth > STEADY else None


def _by_size(retention: Retention, before: Look | None, now: Look) -> float | None:
    if not retention.bytes or before is None or now.at <= before.at:
        return None
    seconds = now.at - before.at
    # Messages that stay unread a while longer are deleted as fast as others arrive.
    falling_behind = ((now.end - before.end) - (now.committed - before.committed)) / seconds
    if falling_behind <= 0:
        return None
    grown = (now.size - before.size) / seconds
    left = FULL * retention.bytes - now.size
    if left > 0 and grown <= 0:
        return None
    until_full = max(0.0, left / grown) if left > 0 else 0.0
    return until_full + max(0, now.committed + 1 - now.first) / falling_behind


def words(seconds: float) -> str:
    """A time span for people: "40 s", "14 min", "5 h", "3 days"."""
    for size, name in ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
