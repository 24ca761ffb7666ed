"""What is logged of rejects: the first of each kind at once, then a line a minute with a count and an example.

A log that tells of every reject would bury the outages in it.
"""

import logging

from msgspec import Struct

#: Seconds between two lines of one kind.
SUMMARY_SECONDS = 60.0
#: Kinds told apart, at most; the rest are one kind, for each topic.
MAX_KINDS = 200
OTHER = "other"
#: Of a reject's detail, so many characters are logged.
DETAIL_CHARACTERS = 300


class _Kind(Struct):
    """Rejects of one topic for one reason."""

    #: Since its last line.
    count: int
    #: When that was; seconds of the caller's clock.
    told_at: float
    #: Where the last one was, and what was wrong.
    place: str = ""
    detail: str = ""


class RejectLog:
    """The rejects of one process."""

    def __init__(self, logger: logging.Logger, thing: str = "messages", verb: str = "rejected") -> None:
        """`thing`: what is rejected, in the plural; `verb`: what each line begins with."""
        self._logger = logger
        self._thing = thing
        self._verb = verb
        #: By topic (or what stands for it) and reason.
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def add(self, topic: str, place: str, reason: str, detail: str, now: float, count: int = 1) -> None:
        """A reject: of which topic, where there, why. Logs it where it is the first of its kind for a minute.

        `count`: how many there are of the kind, of which this is one.
        """
        detail = detail[:DETAIL_CHARACTERS]
        kind = self._kinds.get((topic, reason))
        if kind is None and len(self._kinds) >= MAX_KINDS:
            detail, reason = f"{reason}: {detail}", OTHER
            kind = self._kinds.get((topic, reason))
        if kind is None:
            self._kinds[topic, reason] = _Kind(count - 1, now, place, detail)
            self._logger.warning("%s %s %s: %s: %s", self._verb, topic, place, reason, detail)
            return
        kind.count += count
        kind.place, kind.detail = place, detail
        if now - kind.told_at >= SUMMARY_SECONDS:
            self._tell(topic, reason, kind, now)

    def tell(self, now: float, everything: bool = False) -> None:
        """Logs what is due, or all. A kind of which there were no more is new when it comes again."""
        for (topic, reason), kind in list(self._kinds.items()):
            if kind.count and (everything or now - kind.told_at >= SUMMARY_SECONDS):
                self._tell(topic, reason, kind, now)
            elif now - kind.told_at >= SUMMARY_SECONDS:
                del self._kinds[topic, reason]

    def _tell(self, topic: str, reason: str, kind: _Kind, now: float) -> None:
        self._logger.warning("%s %d more %s of %s in %.0f s: %s; the last one: %s: %s", self._verb, kind.count,
                             self._thing, topic, now - kind.told_at, reason, kind.place, kind.detail)
        kind.count, kind.told_at = 0, now
