"""An outage of Iggy, as the log and the coordinator see it."""

import logging
from collections.abc import Callable

from msgspec import Struct

from pipeline.iggy.errors import IggyAuthenticationFailed, IggyError
from pipeline.logs import RepeatFilter
from pipeline.wire import common


class Outage:
    """Logs when reading from Iggy fails and when it works again, and reports both to the coordinator."""

    def __init__(self, logger: logging.Logger, send: Callable[[Struct], None]) -> None:
        """`send` sends a message to the coordinator."""
        self._logger = logger
        self._send = send
        self._repeats = RepeatFilter()
        #: When the outage began; seconds, monotonic; None while Iggy works.
        self._since: float | None = None
        self._logged = False
        self._reported = ""

    def failed(self, error: IggyError, now: float) -> None:
        """A call has failed at `now` (seconds, monotonic)."""
        if self._since is None:
            self._since = now
        if self._repeats.allows(str(error), now):
            self._logged = True
            self._logger.warning("reading is interrupted, retrying: %s%s", error, self._repeats.times)
        if self._reported != str(error):
            self._reported = str(error)
            self._send(common.Retrying(self._reported, paused=isinstance(error, IggyAuthenticationFailed)))

    def ended(self, now: float) -> None:
        """Reading works at `now` (seconds, monotonic)."""
        if self._since is None:
            return
        if self._logged:
            self._logger.info("reading continues, after an outage of %.1f s", now - self._since)
        self._send(common.Retrying(""))
        self._since, self._logged, self._reported = None, False, ""
