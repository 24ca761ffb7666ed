"""What stands before every answer: who may ask, under which name the server was addressed, and limits."""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Longest time for one request over the port, seconds: a client that does not read its answer is cut off.
REQUEST_SECONDS: Final = 30.0
#: Largest body of a request, bytes.
BODY_BYTES: Final = 1_000_000
#: Paths that are answered without a token, as one word.
OPEN_PATHS: Final = ("/livez", "/readyz")
#: Ends of names that no public DNS can have, so that nobody else's page can be served under them. Source: RFC 6761,
#: RFC 6762, RFC 8375, and ICANN's reservation of "internal".
_PRIVATE_ENDS: Final = (".localhost", ".local", ".internal", ".home.arpa", ".test")


class Access:
    """Who may see what."""

    def __init__(self, token: str, names: tuple[str, ...]) -> None:
        """`token`: whoever has it sees everything; "": no one needs one. `names` address the server."""
        self.trusts_all = False
        self._token = token.encode()
        self._names = {name.lower() for name in (*names, socket.gethostname())}

    @classmethod
    def of_local_sockets(cls) -> "Access":
        """Whoever can connect is the same user, or root."""
        access = cls("", ())
        access.trusts_all = True
        return access

    def add_name(self, name: str) -> None:
        """The server is addressed by this name, too."""
        self._names.add(name.lower())

    @property
    def needs_token(self) -> bool:
        """Whether a token is needed."""
        return bool(self._token)

    def has_token(self, authorization: str) -> bool:
        """Whether an Authorization header has the token: as Bearer, or as the password of Basic."""
        kind, _, value = authorization.partition(" ")
        given = value.strip().encode("latin-1", "replace")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif kind.lower() != "bearer":
            return False
        return bool(self._token) and hmac.compare_digest(given, self._token)

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server, or is one that no page of somebody else can have."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        name = name.removeprefix("[").removesuffix("]").rstrip(".").lower()
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            return bool(name) and ("." not in name or name.endswith(_PRIVATE_ENDS) or name in self._names)


class Guard:
    """An ASGI application around another one. Requests that pass have scope["trusted"]: whether they see
    everything."""

    def __init__(self, app: App, access: Access, logger: logging.Logger) -> None:
        self._app = app
        self._access = access
        self._logger = logger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        limited = _Limited(receive)
        try:
            async with asyncio.timeout(None if self._access.trusts_all else REQUEST_SECONDS):
                await self._app(scope, limited, send)
        except _TooLarge:
            await _refuse(413, f"the body of the request is larger than {BODY_BYTES:,} bytes")(scope, receive, send)
        except (TimeoutError, ConnectionError):
            raise
        except Exception:
            self._logger.exception("a request failed; this is a fault in the pipeline, please report it")
            raise

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        """The answer to a request that is not let through. Sets `trusted` for others."""
        headers = Headers(scope=scope)
        access = self._access
        scope["trusted"] = scope["brief"] = False
        scope["local"] = access.trusts_all
        if access.trusts_all or access.has_token(headers.get("authorization", "")):
            scope["trusted"] = True
            return None
        if not access.knows(headers.get("host", "")):
            return _refuse(421, "this server is not known by the name in the Host header; use its IP address, or add "
                                "the name to http.allowed_hosts")
        if access.needs_token:
            scope["brief"] = True
            if scope["path"] not in OPEN_PATHS:
                return _refuse(401, "a token is needed: http.token, as Authorization: Bearer TOKEN, or as the password "
                                    "of any user", {"WWW-Authenticate": 'Basic realm="pipeline", charset="UTF-8"'})
        return None


def _refuse(status: int, error: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": error}, status, {"Connection": "close", **(headers or {})})


class _TooLarge(Exception):
    """The body of a request is too large."""


class _Limited:
    """Receives the body of a request, as far as it is not too large. Raises _TooLarge."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._size = 0

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > BODY_BYTES:
            raise _TooLarge
        return message
