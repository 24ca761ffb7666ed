"""The Flight service of the sandbox InfluxDB 3: DoGet with a ticket of JSON, on a port of its own.

The real one shares its port with HTTP. Tags come as plain strings, and what a column is stands in its metadata, as from
the real one; each answer begins with an empty batch, which the real one sends whenever nothing came for 5 s.

Rules of `faults` with `query` act here, too: `status` as the gRPC status that comes nearest; `delay_seconds` before
anything is sent; `hang` and `reset` = "middle" after the first rows, another `reset` before anything. A `reset` ends
the call, and not the connection; `refuse` ends all connections.

Source: influxdata/influxdb, `core/service_grpc_flight/src/lib.rs`, `keep_alive.rs`, `core/schema/src/lib.rs`.
"""

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pyarrow as pa
from msgspec import Struct
from pyarrow import flight

from pipeline.errors import PipelineError
from pipeline.testbed.sandbox.influxdb.answers_v3 import Refusal
from pipeline.testbed.sandbox.influxdb.faults import Rule
from pipeline.testbed.sandbox.influxdb.http1 import Request
from pipeline.testbed.sandbox.influxdb.query_v3 import NULL, TAG, TEXT, TIME, WORDS, Answer

#: Rows in the first batches and in each after them, at most: the real one's have up to 8,192 (the `batch_size` of
#: DataFusion), and often fewer.
BATCH_ROWS = (100, 1_000, 8_192)
#: How often a call that hangs looks whether it is still wanted, seconds.
LOOK_SECONDS = 0.05
_TYPES = {"Float64": (pa.float64(), "field::float"), "Int64": (pa.int64(), "field::integer"),
          "UInt64": (pa.uint64(), "field::uinteger"), "Boolean": (pa.bool_(), "field::boolean"),
          TEXT: (pa.string(), "field::string"), TAG: (pa.string(), "tag"), TIME: (pa.timestamp("ns"), "timestamp"),
          NULL: (pa.null(), ""), WORDS: (pa.string(), "")}


class Outcome(Struct, frozen=True):
    """What a call is to get: an answer or a refusal, and a rule that spoils it."""

    found: Answer | Refusal
    rule: Rule
    #: The status of the rule, as in HTTP; below 300 when it has none.
    status: int


#: Asks the sandbox, on its event loop, for the answer to a request whose body is a ticket.
Asked = Callable[[Request], Coroutine[Any, Any, Outcome]]


class FlightService:
    """Listens on loopback, in threads of gRPC; asks the event loop that it was started on."""

    def __init__(self, host: str, port: int, ask: Asked) -> None:
        """`port` 0 takes a free one."""
        # gRPC's own log goes to standard error.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        self.host = host
        self.port = port
        self._ask = ask
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """http://host:port, as a source's `url` has it."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listens (again). Raises PipelineError when the port can't be had."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await asyncio.to_thread(_Server, self.host, self.port, self._ask, loop)
        except (pa.ArrowException, OSError) as error:
            raise PipelineError(f"the sandbox's Flight service can't listen on {self.host}:{self.port} "
                                f"({str(error)[:100]}); stop what has that port, or give another with --flight-port "
                                "(0 takes a free one)") from None
        self.port = self._server.port

    async def stop(self) -> None:
        """Ends all calls and connections."""
        if self._server is not None:
            server, self._server = self._server, None
            server.stopping.set()
            await asyncio.to_thread(server.shutdown)


class _Headers(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Keeps the metadata of a call for it."""

    def start_call(self, info: object, headers: dict[str, list[str]]) -> "_Kept":
        return _Kept({name.lower(): values[0] for name, values in headers.items() if values})


class _Kept(flight.ServerMiddleware):  # type: ignore[misc]
    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers


class _Server(flight.FlightServerBase):  # type: ignore[misc]
    def __init__(self, host: str, port: int, ask: Asked, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(f"grpc+tcp://{host}:{port}", middleware={"headers": _Headers()})
        self._ask = ask
        self._loop = loop
        self.stopping = threading.Event()

    def do_get(self, context: Any, ticket: Any) -> Any:
        """A call, in a thread of gRPC."""
        request = Request("POST", "/flight", {}, context.get_middleware("headers").headers, ticket.ticket)
        outcome = asyncio.run_coroutine_threadsafe(self._ask(request), self._loop).result()
        rule = outcome.rule
        self._wait(context, rule.delay_seconds)
        if outcome.status >= 300:
            raise _error(outcome.status, rule.body or f"told to fail with {outcome.status}")
        if rule.reset in ("before", "after"):
            raise _error(500, "told to break off")
        if isinstance(outcome.found, Refusal):
            raise _error(outcome.found.status, outcome.found.words)
        table = as_table(outcome.found)
        return flight.GeneratorStream(table.schema, self._batches(context, table, rule))

    def _batches(self, context: Any, table: "pa.Table", rule: Rule) -> "Iterator[pa.RecordBatch]":
        yield pa.RecordBatch.from_pylist([], schema=table.schema)
        for batch in _cut(table):
            if self.stopping.is_set():
                raise _error(503, "the sandbox stops")
            yield batch
            if rule.hang:
                self._wait(context, float("inf"))
            if rule.reset == "middle":
                raise _error(500, "told to break off")

    def _wait(self, context: Any, seconds: float) -> None:
        """Waits, as long as the call is wanted."""
        while seconds > 0 and not context.is_cancelled():
            if self.stopping.wait(min(LOOK_SECONDS, seconds)):
                raise _error(503, "the sandbox stops")
            seconds -= LOOK_SECONDS


def _cut(table: "pa.Table") -> "Iterator[pa.RecordBatch]":
    start = 0
    for size in itertools.chain(BATCH_ROWS, itertools.repeat(BATCH_ROWS[-1])):
        if start >= table.num_rows:
            return
        yield from table.slice(start, size).to_batches()
        start += size


def as_table(answer: Answer) -> "pa.Table":
    """An answer as Arrow, with the metadata that names the kind of each column."""
    fields, columns = [], []
    for name, kind in answer.columns.items():
        arrow, what = _TYPES[kind]
        values = [row.get(name) for row in answer.rows]
        if arrow == pa.string():
            values = [value if value is None else value.encode("utf-8", "replace").decode() for value in values]
        metadata = {"iox::column::type": f"iox::column_type::{what}"} if what else None
        fields.append(pa.field(name, arrow, metadata=metadata))
        columns.append(pa.array(values, arrow))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _error(status: int, words: str) -> Exception:
    """The gRPC status that comes nearest to one of HTTP, of those that pyarrow can send."""
    kinds: dict[int, type[Exception]] = {
        400: pa.ArrowInvalid, 401: flight.FlightUnauthenticatedError, 403: flight.FlightUnauthorizedError,
        404: pa.ArrowKeyError, 408: flight.FlightTimedOutError, 422: pa.ArrowInvalid,
        429: flight.FlightUnavailableError, 501: pa.ArrowNotImplementedError, 503: flight.FlightUnavailableError,
        504: flight.FlightTimedOutError}
    error: Exception = kinds.get(status, flight.FlightInternalError)(words)
    return error
