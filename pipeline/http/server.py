"""The servers of the HTTP process: one on the local sockets, one on the port; and what hostile clients meet.

The connections of each are counted for themselves: whoever exhausts the port does not shut out the commands.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.config.http_checks import address_of, server_context, token_of
from pipeline.config.plan import Plan
from pipeline.http.app import make_app
from pipeline.http.feeds import Feeds
from pipeline.http.guard import Access, Guard
from pipeline.http.history import History
from pipeline.http.site import Site
from pipeline.plan_updates import PlanUpdates

#: Connections at a time, to each server; more are closed at once.
MAX_CONNECTIONS: Final = 64
#: Longest time from the connection to the end of the first request's head, seconds: slower clients are cut off.
HEAD_SECONDS: Final = 10.0
#: A connection without a request is closed after this time, seconds. Longer than the usual 15 s between two scrapes.
IDLE_SECONDS: Final = 75
#: Largest head of a request, bytes.
HEAD_BYTES: Final = 16_384


class Protocol(H11Protocol):
    """A connection. Too many of them are closed at once, and one that sends no request in time, too."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._expect_head()

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived: perhaps the first of a request's head, or its last ones."""
        waiting = self.cycle is None or self.cycle.response_complete
        if waiting and self._deadline is None:
            self._expect_head()
        super().data_received(data)
        if not (self.cycle is None or self.cycle.response_complete):
            self._stop_deadline()

    def on_response_complete(self) -> None:
        """An answer is complete. A next request's head may have begun."""
        super().on_response_complete()
        if self.conn.trailing_data[0]:
            self._stop_deadline()
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop_deadline()
        super().connection_lost(exc)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


class _Server(uvicorn.Server):
    """Leaves signals to the supervisor, and sleeps while nobody asks: uvicorn's own loop wakes up each 0.1 s."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes none."""
        yield

    async def main_loop(self) -> None:
        """Runs until cancelled."""
        await asyncio.Event().wait()


class Servers:
    """Both servers."""

    def __init__(self, local: Sequence[socket.socket], port: Sequence[socket.socket], plan: Plan, feeds: Feeds,
                 history: History, logger: logging.Logger, updates: PlanUpdates | None = None) -> None:
        """Raises PipelineError if a file of `[http]` cannot be read any more."""
        http = plan.config.http
        # Uvicorn logs what broken clients do; only its own failures are of interest.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        site = Site(plan, feeds, history, logger, updates)
        self._servers = [(_server(Guard(make_app(site), Access.of_local_sockets(), logger), None), list(local))]
        self._access: Access | None = None
        if port:
            access = self._access = Access(token_of(http), (*http.allowed_hosts, address_of(http.listen)[0]))
            self._servers.append((_server(Guard(make_app(site), access, logger),
                                          server_context(http) if http.cert_file else None), list(port)))

    async def run(self) -> None:
        """Serves until cancelled."""
        await asyncio.gather(self._add_full_name(), *(server.serve(sockets) for server, sockets in self._servers))

    async def _add_full_name(self) -> None:
        """The resolver may take long to say what this machine is called."""
        if self._access is not None:
            self._access.add_name(await asyncio.to_thread(socket.getfqdn))


def _server(app: Callable[..., Any], context: ssl.SSLContext | None) -> _Server:
    config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", loop="asyncio", log_config=None,
                            access_log=False, proxy_headers=False, server_header=False, date_header=False,
                            timeout_keep_alive=IDLE_SECONDS, h11_max_incomplete_event_size=HEAD_BYTES)
    config.load()
    config.ssl = context
    return _Server(config)
