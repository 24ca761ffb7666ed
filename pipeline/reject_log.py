"""Logs rejects: the first of each kind immediately, then one line a minute with a count and an example.

A line for every reject would hide the outages in the log.
"""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from pipeline.log_formats import facts

#: Seconds between two lines of one kind.
SUMMARY_SECONDS = 60.0
#: Kinds that are counted separately, at most; all others are one kind for each topic.
MAX_KINDS = 200
OTHER = "other"
#: A reject of which nothing more is known.
NOTHING: Final[Mapping[str, str | int]] = MappingProxyType({})
#: Longest detail that is logged, characters.
DETAIL_CHARACTERS = 300


class _Kind(Struct):
    """Rejects of one topic for one reason."""

    #: Since the last log line.
    count: int
    #: When that was logged; seconds of the caller's clock.
    logged_at: float
    #: Position of the last reject, and what was wrong.
    place: str = ""
    detail: str = ""
    about: Mapping[str, str | int] = NOTHING


class RejectLog:
    """The rejects of one process."""

    def __init__(self, logger: logging.Logger, thing: str = "messages", verb: str = "rejected") -> None:
        """`thing`: what is rejected, in the plural; `verb`: first words of each line."""
        self._logger = logger
        self._thing = thing
        self._verb = verb
        #: By topic and reason.
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def add(self, topic: str, place: str, reason: str, detail: str, now: float, count: int = 1,
            about: Mapping[str, str | int] = NOTHING) -> None:
        """Counts a reject, and logs it if it is the first of its kind for a minute.

        `place`: its position in the topic; `count`: how many rejects this one stands for; `about`: of `facts`.
        """
        detail = detail[:DETAIL_CHARACTERS]
        kind = self._kinds.get((topic, reason))
        if kind is None and len(self._kinds) >= MAX_KINDS:
            detail, reason = f"{reason}: {detail}", OTHER
            kind = self._kinds.get((topic, reason))
        if kind is None:
            self._kinds[topic, reason] = _Kind(count - 1, now, place, detail, about)
            self._logger.warning("%s %s %s: %s: %s", self._verb, topic, place, reason, detail,
                                 extra=facts(reason=reason, **about))
            return
        kind.count += count
        kind.place, kind.detail, kind.about = place, detail, about
        if now - kind.logged_at >= SUMMARY_SECONDS:
            self._log(topic, reason, kind, now)

    def summarize(self, now: float, everything: bool = False) -> None:
        """Logs the summaries that are due, or `everything`. A kind without rejects for a minute is forgotten."""
        for (topic, reason), kind in list(self._kinds.items()):
            if kind.count and (everything or now - kind.logged_at >= SUMMARY_SECONDS):
                self._log(topic, reason, kind, now)
            elif now - kind.logged_at >= SUMMARY_SECONDS:
                del self._kinds[topic, reason]

    def _log(self, topic: str, reason: str, kind: _Kind, now: float) -> None:
        self._logger.warning("%s %d more %s of %s in %.0f s: %s; the last one: %s: %s", self._verb, kind.count,
                             self._thing, topic, now - kind.logged_at, reason, kind.place, kind.detail,
                             extra=facts(reason=reason, times=kind.count, **kind.about))
        kind.count, kind.logged_at = 0, now
