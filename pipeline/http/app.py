"""The paths that are answered."""

import contextlib
from collections.abc import AsyncGenerator
from email.utils import formatdate

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pipeline import __version__
from pipeline.config.controls import ControlRequest
from pipeline.errors import PipelineError
from pipeline.http.health import alive
from pipeline.http.page_files import PAGE, page_files
from pipeline.http.site import Site
from pipeline.http.tap import MOST_TAPS, tapped

#: Sent with every answer: nothing is stored by caches, guessed by browsers, or shown in another page's frame.
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Referrer-Policy": "no-referrer"}
#: What the status page may load: its own files and answers, and nothing of anybody else.
_PAGE_POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
                "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def make_app(site: Site) -> Starlette:
    """The application. Each request has `scope["trusted"]`, whether it may see everything, and `scope["brief"]`,
    whether it may see nothing but one word."""
    pages = Pages(site)
    routes = [Route("/livez", pages.livez), Route("/readyz", pages.readyz), Route("/status", pages.status),
              Route("/", pages.page), Route("/page/{name}", pages.page), Route("/history", pages.history),
              Route("/tap", pages.tap),
              Route("/payload", pages.payload), Route("/metrics", pages.metrics), Route("/version", pages.version),
              Route("/control", pages.control, methods=["POST"])]
    return Starlette(routes=routes, exception_handlers={HTTPException: _error})


class Pages:
    """The answers, by path."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._files = page_files()
        #: Answers of `/tap` that go on.
        self._taps = 0

    async def livez(self, request: Request) -> Response:
        """Whether the pipeline lives: 200 or 503."""
        why = alive(self._site.feeds.read())
        return answer({"alive": not why} if request.scope["brief"] or not why else {"alive": False, "reason": why},
                      503 if why else 200)

    async def readyz(self, request: Request) -> Response:
        """Whether the pipeline is ready, 200 or 503, with what it waits for."""
        found = self._site.readiness()
        return answer({"ready": found.ready} if request.scope["brief"] else found, 200 if found.ready else 503)

    async def status(self, request: Request) -> Response:
        """All that is known."""
        return answer(self._site.document(request.scope["trusted"]))

    async def control(self, request: Request) -> Response:
        """Passes what a command asks for on to the supervisor. On local sockets only: no browser reaches those."""
        if not request.scope["local"]:
            return answer({"error": "the pipeline is steered over its local socket only"}, 403)
        try:
            self._site.control(msgspec.json.decode(await request.body(), type=ControlRequest))
        except msgspec.MsgspecError as error:
            return answer({"error": f"this is no request: {error}"}, 400)
        return answer({"sent": True})

    async def history(self, _request: Request) -> Response:
        """The totals of the last hour."""
        return answer(self._site.history.plots())

    async def page(self, request: Request) -> Response:
        """The status page, and the files that it loads."""
        name = request.path_params.get("name", PAGE)
        found = self._files.get(name)
        if found is None:
            return answer({"error": f"there is no file {name[:100]} of the status page"}, 404)
        return Response(found.content, 200, {**_headers(), "Content-Security-Policy": _PAGE_POLICY}, found.kind)

    async def tap(self, request: Request) -> Response:
        """Samples of what passes, without an end. On local sockets only: nothing there cuts a long answer off."""
        if not request.scope["local"]:
            return answer({"error": "samples are answered over the local socket only: pipeline tap"}, 403)
        if self._taps >= MOST_TAPS:
            return answer({"error": f"{MOST_TAPS} others tap this pipeline; end one of them"}, 503)
        return StreamingResponse(self._tapped(), 200, _headers(), "application/x-ndjson")

    async def _tapped(self) -> AsyncGenerator[bytes, None]:
        self._taps += 1
        try:
            async with contextlib.aclosing(tapped(self._site.plan, self._site.feeds)) as lines:
                async for line in lines:
                    yield line
        finally:
            self._taps -= 1

    async def payload(self, request: Request) -> Response:
        """The payload of one of the last dead letters, by stream, topic, partition and offset; for who is trusted."""
        if not request.scope["trusted"]:
            return answer({"error": "payloads are shown to the holder of http.token only"}, 403)
        query = request.query_params
        letter = self._site.letter(*(query.get(name, "") for name in ("stream", "topic", "partition", "offset")))
        if letter is None:
            return answer({"error": "this is none of the last dead letters; pipeline dlq show has the others"}, 404)
        try:
            found = await self._site.payload(letter)
        except PipelineError as error:
            return answer({"error": str(error)}, 502)
        return answer(found or {"error": "Iggy does not have the message any more"}, 200 if found else 404)

    async def metrics(self, request: Request) -> Response:
        """The metrics, for Prometheus."""
        content, kind = self._site.metrics(request.headers.get("accept", ""))
        return Response(content, 200, {**_headers(), "Content-Type": kind})

    async def version(self, _request: Request) -> Response:
        """The version."""
        return answer({"version": __version__})


def answer(content: object, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(content), status, _headers(), "application/json")


def _headers() -> dict[str, str]:
    return {**_HEADERS, "Date": formatdate(usegmt=True)}


async def _error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, {**_headers(), **(error.headers or {})})
