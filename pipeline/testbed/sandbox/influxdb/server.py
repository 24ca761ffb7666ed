"""The sandbox InfluxDB: takes writes as InfluxDB 1, 2 or 3 or QuestDB would, keeps the points in memory, and fails when
told to.

Beside the flavour's own paths there are:

- `GET /sandbox/count?bucket=`: `{"points": n}`
- `GET /sandbox/points?bucket=&measurement=&limit=`: a list of `store.StoredPoint`, sorted by measurement, tags and time
- `DELETE /sandbox/points?bucket=`: forgets points and field types; of all buckets without `bucket`
- `GET /sandbox/stats`: `counting.Stats` of the writes
- `PUT /sandbox/faults`: a `faults.Rule`, or a list of them, in the place of those there are; `GET` and `DELETE` them
- `POST /sandbox/iggy`: a command for the sandbox broker that runs beside it, and its state after it: see `control`
"""

import asyncio
import itertools
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from pipeline.errors import PipelineError
from pipeline.testbed.sandbox.influxdb import answers, faults
from pipeline.testbed.sandbox.influxdb.answers import Flavour, FlavourAnswers, Identity, Server
from pipeline.testbed.sandbox.influxdb.answers_questdb import AnswersQuestdb
from pipeline.testbed.sandbox.influxdb.answers_v1 import AnswersV1
from pipeline.testbed.sandbox.influxdb.answers_v2 import AnswersV2
from pipeline.testbed.sandbox.influxdb.answers_v3 import AnswersV3, Refusal
from pipeline.testbed.sandbox.influxdb.counting import CountingConnection, Stats
from pipeline.testbed.sandbox.influxdb.faults import Faults, Rule
from pipeline.testbed.sandbox.influxdb.http1 import Break, Connection, Request, Response, json_response
from pipeline.testbed.sandbox.influxdb.store import Bucket

if TYPE_CHECKING:
    from pipeline.testbed.sandbox.influxdb.flight import Asked, FlightService, Outcome

_FLAVOURS: dict[Flavour, type[AnswersV1] | type[AnswersV2] | type[AnswersV3] | type[AnswersQuestdb]] = {
    "v1": AnswersV1, "v2": AnswersV2, "v3": AnswersV3, "questdb": AnswersQuestdb}
#: Carries out a command for the broker: `control.handle_control` of the one there is.
IggyControl = Callable[[dict[str, object]], Awaitable[dict[str, object]]]
#: One piece of an answer without end.
ENDLESS_PIECE_BYTES = 10_000


class InfluxServer:
    """Listens on loopback. Everything happens on the event loop it was started on."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, flavour: Flavour = "v2",
                 identity: Identity | None = None, *, max_body_bytes: int | None = None, retention_seconds: int = 0,
                 rules: list[Rule] | None = None, count_only: bool = False,
                 iggy_control: IggyControl | None = None, flight_port: int | None = None) -> None:
        """`port` 0 takes a free one. `max_body_bytes`: 0 none, None the flavour's own. `count_only`: see `counting`.

        `flight_port`: of the Flight service, which only v3 has and which needs pyarrow; None: there is none. Raises
        PipelineError when it can't be had.
        """
        self.host = host
        self.port = port
        self.stats = Stats()
        self.identity = identity or Identity()
        self._configured = msgspec.structs.replace(self.identity)
        self._server = Server(self.identity, {}, max_body_bytes, retention_seconds)
        self._server.buckets[self.identity.bucket] = Bucket(self.identity.bucket, retention_seconds)
        self._answers: FlavourAnswers = _FLAVOURS[flavour](self._server)
        self._faults = Faults([])
        self._rules_at_start = rules or []
        self._count_only = count_only
        self._flight = _flight_service(host, flight_port, flavour, self._flight_asked)
        self._connections: set[Connection] = set()
        self._iggy_control = iggy_control
        #: Bound, never listening: keeps the port while nothing listens on it.
        self._reservation: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        #: Kept, so that they aren't collected while they run.
        self._reopening: asyncio.Task[None] | None = None
        self._iggy_command: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """http://host:port."""
        return f"http://{self.host}:{self.port}"

    @property
    def flight_url(self) -> str:
        """http://host:port of the Flight service; "" where there is none."""
        return self._flight.url if self._flight is not None else ""

    @property
    def buckets(self) -> dict[str, Bucket]:
        """The buckets by name."""
        return self._server.buckets

    async def start(self) -> None:
        """Listens. Raises OSError when the port is taken."""
        self._reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind((self.host, self.port))
        self.port = self._reservation.getsockname()[1]
        await self._listen()
        if self._flight is not None:
            await self._flight.start()
        self._set_faults(self._rules_at_start)

    async def stop(self) -> None:
        """Stops listening and drops all connections."""
        if self._reopening is not None:
            self._reopening.cancel()
        if self._listener is not None:
            self._listener.close()
        self._drop_connections()
        if self._flight is not None:
            await self._flight.stop()
        if self._reservation is not None:
            self._reservation.close()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: CountingConnection(self.stats) if self._count_only else Connection(self), self.host, self.port)

    def _drop_connections(self) -> None:
        for connection in list(self._connections):
            connection.transport.abort()

    # What a Connection calls.

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """A client is gone."""
        self._connections.discard(connection)

    def head(self, request: Request) -> Break:
        """Whether a fault breaks the connection off before the request's body is read."""
        if not self._is_write(request):
            return ""
        rule, when = self._faults.at_head()
        if rule is not None:
            self.stats.requests += 1
            self.stats.resets += 1
        return when

    def request(self, connection: Connection, request: Request) -> None:
        """Answers, or fails by a rule."""
        if request.path == "/sandbox/iggy":
            self._iggy_command = asyncio.get_running_loop().create_task(self._command_iggy(connection, request))
        elif request.path.startswith("/sandbox/"):
            connection.answer(self._control(request))
        elif self._is_write(request):
            self._write(connection, request)
        elif request.path in self._answers.query_paths and (rule := self._faults.at_query(request.body)) is not None:
            self._fail(connection, request, rule)
        else:
            response = self._answers.answer(request, time.time_ns())
            if request.method == "HEAD":
                response = msgspec.structs.replace(response, body=b"")
            connection.answer(response)

    def _is_write(self, request: Request) -> bool:
        return request.method == "POST" and request.path in self._answers.write_paths

    def _write(self, connection: Connection, request: Request) -> None:
        self.stats.requests += 1
        self.stats.bytes += len(request.body)
        rule = self._faults.at_body(_readable(request) if self._faults.need_body else b"")
        if rule is None:
            self._answer(connection, self._answers.answer(request, time.time_ns()))
        else:
            self._fail(connection, request, rule)

    def _fail(self, connection: Connection, request: Request, rule: Rule) -> None:
        """Answers by a rule, if at all."""
        status = rule.hit() or 200
        if rule.hang:
            self.stats.hangs += 1
        elif rule.endless:
            self._answer(connection, Response(200, pieces=itertools.repeat(b"0" * ENDLESS_PIECE_BYTES)))
        elif rule.reset in ("before", "middle"):
            self._reset(connection)
        else:
            if rule.cut is not None:
                request.headers.pop("accept-encoding", None)
            response = self._answers.failure(status) if status >= 300 else self._answers.answer(
                request, time.time_ns())
            response = _as_told(response, rule)
            loop = asyncio.get_running_loop()
            if rule.reset == "after":
                loop.call_later(rule.delay_seconds, self._reset, connection)
            elif rule.delay_seconds:
                loop.call_later(rule.delay_seconds, self._answer, connection, response)
            else:
                self._answer(connection, response)

    def _answer(self, connection: Connection, response: Response) -> None:
        self.stats.count_status(response.status)
        connection.answer(response)

    def _reset(self, connection: Connection) -> None:
        self.stats.resets += 1
        connection.reset()

    async def _flight_asked(self, request: Request) -> "Outcome":
        """What a call of the Flight service is to get."""
        from pipeline.testbed.sandbox.influxdb.flight import Outcome

        assert isinstance(self._answers, AnswersV3)
        rule = self._faults.at_query(request.body) or Rule()
        status = rule.hit() or 200
        try:
            return Outcome(self._answers.flight(request), rule, status)
        except Refusal as error:
            return Outcome(error, rule, status)

    # The sandbox's own paths.

    def _control(self, request: Request) -> Response:
        action = request.method, request.path
        if action == ("GET", "/sandbox/stats"):
            return json_response(200, msgspec.to_builtins(self.stats))
        if action[1] == "/sandbox/faults":
            return self._control_faults(request)
        if action == ("DELETE", "/sandbox/points") and not request.query.get("bucket"):
            for bucket in self.buckets.values():
                bucket.clear()
            return Response(204)
        name = request.query.get("bucket") or self.identity.bucket
        found = self.buckets.get(name)
        if found is None:
            return json_response(404, {"error": f"bucket {name} not found"})
        if action == ("GET", "/sandbox/count"):
            return json_response(200, {"points": found.count})
        if action == ("GET", "/sandbox/points"):
            return _points(found, request.query)
        if action == ("DELETE", "/sandbox/points"):
            found.clear()
            return Response(204)
        return json_response(404, {"error": f"{request.method} {request.path}: no such thing here"})

    async def _command_iggy(self, connection: Connection, request: Request) -> None:
        if self._iggy_control is None:
            connection.answer(json_response(404, {"error": "no sandbox broker runs beside this server"}))
            return
        try:
            command = msgspec.json.decode(request.body, type=dict[str, object])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            connection.answer(json_response(400, {"error": f"a command is a JSON object: {error}"}))
            return
        state = await self._iggy_control(command)
        connection.answer(json_response(400 if "error" in state else 200, state))

    def _control_faults(self, request: Request) -> Response:
        if request.method == "PUT":
            try:
                rules = faults.parse_rules(request.body)
            except PipelineError as error:
                return json_response(400, {"error": str(error)})
            refuses = any(rule.refuse for rule in rules)
            # Answer first: to refuse drops this connection, too.
            asyncio.get_running_loop().call_soon(self._set_faults, rules) if refuses else self._set_faults(rules)
            return Response(204, close=refuses)
        if request.method == "DELETE":
            self._set_faults([])
            return Response(204)
        return json_response(200, msgspec.to_builtins(self._faults.rules))

    def _set_faults(self, rules: list[Rule]) -> None:
        """Puts rules in the place of those there are. Without a rule for it, the token is the configured one again."""
        self._faults = Faults(rules)
        self.identity.token, self.identity.password = self._configured.token, self._configured.password
        for rule in rules:
            if rule.token:
                self.identity.token = self.identity.password = rule.token
            if rule.refuse:
                self._refuse(rule.refuse)

    def _refuse(self, seconds: float) -> None:
        if self._reopening is not None:
            self._reopening.cancel()
        if self._listener is not None:
            self._listener.close()
        self._drop_connections()
        self._reopening = asyncio.get_running_loop().create_task(self._reopen(seconds))

    async def _reopen(self, seconds: float) -> None:
        if self._flight is not None:
            await self._flight.stop()
        await asyncio.sleep(seconds)
        if self._flight is not None:
            await self._flight.start()
        await self._listen()


def _flight_service(host: str, port: int | None, flavour: Flavour, ask: "Asked") -> "FlightService | None":
    if port is None:
        return None
    if flavour != "v3":
        raise PipelineError("only InfluxDB 3 has a Flight service: give --flavour v3 with --flight-port")
    try:
        from pipeline.testbed.sandbox.influxdb.flight import FlightService
    except ImportError:
        from pipeline.errors import missing_package
        raise PipelineError(f"--flight-port {missing_package('pyarrow', 'flight')}") from None
    return FlightService(host, port, ask)


def _readable(request: Request) -> bytes:
    try:
        return answers.inflate(request)
    except answers.NotGzip:
        return request.body


def _as_told(response: Response, rule: Rule) -> Response:
    """The response with a rule's body and headers."""
    told = {name.lower() for name in rule.headers} | ({"content-encoding"} if rule.body else set())
    kept = tuple(header for header in response.headers if header[0].lower() not in told)
    body = rule.body.encode() if rule.body else response.body
    pieces = None if rule.body else response.pieces
    if rule.cut is not None:
        body, pieces = (b"".join(pieces) if pieces is not None else body)[:rule.cut], None
    return msgspec.structs.replace(response, body=body, pieces=pieces, headers=(*kept, *rule.headers.items()))


def _points(bucket: Bucket, query: dict[str, str]) -> Response:
    limit = query.get("limit", "")
    if limit and not limit.isdigit():
        return json_response(400, {"error": f"limit: {limit} is not a number of points"})
    points = list(itertools.islice(bucket.points(query.get("measurement", "")), int(limit) if limit else None))
    try:
        body = msgspec.json.encode(points)
    except UnicodeEncodeError:  # bytes that are no UTF-8
        body = answers.go_json(msgspec.to_builtins(points))
    return Response(200, body, (("Content-Type", "application/json"),))
