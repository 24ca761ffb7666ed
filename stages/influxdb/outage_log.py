"""Logs the failures of one database, for writing and for querying."""

import logging

from pipeline.log_formats import facts
from pipeline.logs import RepeatFilter
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.influxdb.concurrency import ConcurrencyLimiter


class OutageLog:
    """Logs each failure once in ten seconds, and knows whether one was logged since the last success."""

    def __init__(self, logger: logging.Logger, limiter: ConcurrencyLimiter) -> None:
        """`limiter` is the database's: it counts the failures and has the pause before the next request."""
        self._logger = logger
        self._limiter = limiter
        self._filter = RepeatFilter()
        self._logged = False

    def failed(self, activity: str, answer: Retry | OperatorNeeded, now: float, **about: str) -> None:
        """A request of `activity`, such as "writing", has failed at `now` (seconds, monotonic). `about`: of `facts`."""
        if not self._filter.allows(answer.message, now):
            return
        self._logged = True
        extra = facts(status=answer.status or None, reason=answer.reason, **about)
        if isinstance(answer, OperatorNeeded):
            self._logger.error("%s is paused, nothing is lost: %s%s", activity, answer.message, self._filter.times,
                               extra=extra)
        else:
            self._logger.warning("%s failed (%d in a row), next try in %.1f s: %s%s", activity, self._limiter.failures,
                                 self._limiter.wait(now), answer.message, self._filter.times, extra=extra)

    def recovered(self) -> bool:
        """A request was successful. True if a failure was logged since the last time."""
        logged, self._logged = self._logged, False
        return logged
