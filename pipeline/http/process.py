"""The process `http`: answers requests for health, metrics and status.

It only watches the others, which never wait for it. It listens on sockets that the supervisor holds, and loads the
server with the first connection: a pipeline that nobody asks costs next to nothing.
"""

import asyncio
import faulthandler
import logging
import resource
import socket
import time
from collections.abc import Sequence
from typing import Final

from pipeline.config.http_checks import token_of
from pipeline.config.plan import Plan
from pipeline.config.secrets import secret_forms
from pipeline.http.feeds import Feeds
from pipeline.http.history import History
from pipeline.logs import hide
from pipeline.plan_updates import PlanUpdates

#: Seconds between two samples of the totals.
SAMPLE_SECONDS: Final = 1.0
#: The process ends itself, and is started again, if its loop stands still for so long, seconds.
HANG_SECONDS: Final = 30.0
#: How often that time starts again, seconds.
GUARD_SECONDS: Final = 5.0
#: Longest wait for the first message of every feed, before the first answer, seconds.
FIRST_SECONDS: Final = 2.5
#: Files that it may open: connections, above all. Whoever opens more of them hurts only this process.
OPEN_FILES: Final = 512


def run(local: Sequence[socket.socket], port: Sequence[socket.socket], plan: Plan, logger: logging.Logger,
        updates: PlanUpdates) -> None:
    """Answers until the process is killed: on Unix sockets, to whom everything is shown, and on those of
    `http.listen`."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, most) if most > 0 else OPEN_FILES, most))
    hide(secret_forms(token_of(plan.config.http)))
    asyncio.run(HttpProcess(local, port, plan, logger, updates).run())


class HttpProcess:
    """Samples the totals, and starts the servers when somebody connects."""

    def __init__(self, local: Sequence[socket.socket], port: Sequence[socket.socket], plan: Plan,
                 logger: logging.Logger, updates: PlanUpdates) -> None:
        self._local, self._port = local, port
        self._plan = plan
        self._updates = updates
        self._logger = logger
        self.feeds = Feeds(plan)
        self.history = History()

    async def run(self) -> None:
        """Runs until cancelled."""
        await asyncio.gather(self._sample(), self._serve(), self._export())

    async def _sample(self) -> None:
        guarded_at = float("-inf")
        while True:
            if time.monotonic() - guarded_at > GUARD_SECONDS:
                guarded_at = time.monotonic()
                faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            self.history.add(self.feeds.read())
            await asyncio.sleep(SAMPLE_SECONDS - time.time() % SAMPLE_SECONDS)

    async def _serve(self) -> None:
        await _connection([*self._local, *self._port])
        await self._first_messages()
        # Imported here: it takes a while, and much memory.
        from pipeline.http.server import Servers
        await Servers(self._local, self._port, self._plan, self.feeds, self.history, self._logger,
                      self._updates).run()

    async def _export(self) -> None:
        """Sends the metrics to a collector, if there is one."""
        otlp = self._plan.config.otlp
        if otlp.endpoint:
            # Imported here: few have a collector.
            from pipeline.http.otlp import OtlpExport
            from pipeline.http.site import Site
            await OtlpExport(Site(self._plan, self.feeds, self.history, self._logger), otlp, self._logger).run()

    async def _first_messages(self) -> None:
        """Waits until every feed has sent something, but not long: a coordinator may be down."""
        until = time.monotonic() + FIRST_SECONDS
        while not self.feeds.complete and time.monotonic() < until:
            await asyncio.sleep(0.02)


async def _connection(sockets: Sequence[socket.socket]) -> None:
    """Returns when somebody has connected to one of the sockets."""
    loop = asyncio.get_running_loop()
    connected = asyncio.Event()
    for one in sockets:
        one.setblocking(False)
        loop.add_reader(one.fileno(), connected.set)
    try:
        await connected.wait()
    finally:
        for one in sockets:
            loop.remove_reader(one.fileno())
