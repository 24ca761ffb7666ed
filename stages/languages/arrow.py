"""SQL and InfluxQL through the Flight service of InfluxDB 3, answered as Arrow record batches. Pure.

Query sends an Arrow IPC stream to convert. Integers, times and text go from Arrow's columns straight to Python objects,
never through a float, a data frame or text.

Sources: influxdata/influxdb, `core/service_grpc_flight/src/request.rs` (the ticket as JSON; influxdb3-python sends the
same) and `lib.rs` (tags come as plain strings, empty batches while there is nothing to send); `core/schema/src/lib.rs`
(what a column is, in the field's metadata); Arrow columnar format, IPC streaming format.
"""

from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import ipc, types

from pipeline.points.field_type import FieldType
from pipeline.points.table import BadRow, Column, Table, sort_columns
from pipeline.printable import excerpt
from stages.languages.language import QueryAnswer, QueryError, QueryRequest
from stages.languages.v3 import NO_DATA, V3Dialect

#: The metadata that tells tags from fields; computed columns have none.
_COLUMN_TYPE, _TAG = b"iox::column::type", b"iox::column_type::tag"


class ArrowDialect(V3Dialect):
    """SQL and InfluxQL over Arrow Flight; record batches describe tags, fields and types themselves."""

    def _ask(self, query: str, language: str) -> QueryRequest:
        return QueryRequest("", msgspec.json.encode({"database": self._database, "sql_query": query,
                                                     "query_type": language}))

    def _listed(self, body: bytes) -> list[dict[str, Any]]:
        if not body:
            return []
        with ipc.open_stream(body) as reader:
            rows: list[dict[str, Any]] = reader.read_all().to_pylist()
            return rows

    def answer_reader(self) -> "ArrowAnswerReader":
        return ArrowAnswerReader(self.ordered, self._columns)

    def tables(self, measurement: str, columns: tuple[Column, ...], body: bytes, before: int) -> Iterator[Table]:
        """One table for each record batch. A field has the type of the answer, not of `columns`."""
        with ipc.open_stream(body) as reader:
            positions = self._columns(reader.schema, frozenset(c.name for c in columns if c.kind == "tag"))
            kept = sort_columns(list(positions))
            time = reader.schema.get_field_index("time")
            for batch in reader:
                values = [_nanoseconds(batch.column(time)).to_pylist(),
                          *(_values(batch.column(positions[column]), column) for column in kept)]
                made: list[tuple[Any, ...]] = list(zip(*values, strict=True))
                bad: list[BadRow] = []
                if wrong := _wrong(values, kept):
                    bad = [BadRow("bad_value", why, excerpt(str(made[at]))) for at, why in wrong.items()
                            if made[at][0] is None or made[at][0] < before]
                    made = [row for at, row in enumerate(made) if at not in wrong]
                yield Table(measurement, kept, [row for row in made if row[0] < before], bad)

    def _columns(self, schema: pa.Schema, tags: frozenset[str] = frozenset()) -> dict[Column, int]:
        """Tags and fields, with their positions in a batch. Raises QueryError for a schema that no point fits."""
        time = schema.get_field_index("time")
        if time < 0 or not types.is_timestamp(schema.field(time).type):
            raise QueryError("the answer has no column time, of the type timestamp; keep it in the query")
        names: list[str] = schema.names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise QueryError(f"the answer has two columns {twice}; rename one of them in the query")
        return {self._column(field, tags): at for at, field in enumerate(schema)
                if field.name not in NO_DATA and not types.is_null(field.type)}

    def _column(self, field: pa.Field, tags: frozenset[str]) -> Column:
        name, kind = field.name, _field_type(field.type)
        if kind is None:
            raise QueryError(f"column {name} has the type {field.type}, which no field has; cast it in the query")
        column_type = (field.metadata or {}).get(_COLUMN_TYPE)
        is_tag = column_type == _TAG if column_type else types.is_dictionary(field.type)
        if name in tags or name in self._tags or is_tag and name not in self._types:
            return Column(name, "tag", "string")
        declared = self._types.get(name, kind)
        if kind != declared and not (kind == "integer" and declared in ("float", "unsigned")):
            raise QueryError(f"column {name} is {kind}, and in types {declared}; correct types, or cast it")
        return Column(name, "field", declared)


class ArrowAnswerReader:
    """Collects record batches into one IPC stream."""

    def __init__(self, ordered: bool, check: Callable[[pa.Schema], object] | None = None) -> None:
        """`ordered`: the answer needs the times of its first and last row. `check` refuses bad schemas: QueryError."""
        self.rows = 0
        self.size = 0
        self._ordered = ordered
        self._check = check
        self._sink: pa.BufferOutputStream = None
        self._writer: pa.RecordBatchStreamWriter = None
        self._first: int | None = None
        self._last: int | None = None

    def feed(self, piece: pa.RecordBatch) -> None:
        """Adds a record batch; the first one, which may be empty, has the schema."""
        if self._writer is None:
            if self._check is not None:
                self._check(piece.schema)
            self._sink = pa.BufferOutputStream()
            self._writer = ipc.new_stream(self._sink, piece.schema)
        if not piece.num_rows:
            return
        try:
            piece.validate(full=True)
        except pa.ArrowInvalid as error:
            raise QueryError(f"the answer is damaged: {error}", retryable=True) from None
        self.rows += piece.num_rows
        self.size += piece.nbytes
        self._writer.write_batch(piece)
        if self._ordered:
            times = piece.column("time")
            self._last = _nanoseconds(times[-1:])[0].as_py()
            if self._first is None:
                self._first = _nanoseconds(times[:1])[0].as_py()

    def finish(self, complete: bool) -> QueryAnswer:
        if not self.rows:
            return QueryAnswer(b"", 0)
        self._writer.close()
        body = self._sink.getvalue().to_pybytes()
        if not self._ordered:
            return QueryAnswer(body, self.rows)
        if self._first is None or self._last is None:
            raise QueryError("a row of the answer has no time", retryable=True)
        return QueryAnswer(body, self.rows, self._first, self._last)


def _field_type(kind: pa.DataType) -> FieldType | None:
    """The field type for an Arrow type; None if no field can hold it exactly."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_signed_integer(kind):
        return "integer"
    if types.is_unsigned_integer(kind):
        return "unsigned"
    if types.is_floating(kind):
        return "float"
    if types.is_boolean(kind):
        return "boolean"
    return "string" if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) else None


def _nanoseconds(times: pa.Array) -> pa.Array:
    """Times of any unit and zone as nanoseconds since 1970. Raises QueryError if one is out of range."""
    try:
        if times.type.unit != "ns":
            times = times.cast(pa.timestamp("ns", times.type.tz))
    except pa.ArrowInvalid as error:
        raise QueryError(f"a time of the answer is out of range: {error}") from None
    return times.cast(pa.int64())


def _values(array: pa.Array, column: Column) -> list[Any]:
    """A column's values as Python objects."""
    kind = array.type
    if types.is_dictionary(kind):
        array = array.dictionary_decode()
    values: list[Any] = array.to_pylist()
    if column.type == "float" and types.is_integer(kind):
        return [None if value is None else float(value) for value in values]
    if column.kind == "tag" and _field_type(kind) != "string":
        return [None if value is None else str(value) for value in values]
    return values


def _wrong(values: list[list[Any]], columns: tuple[Column, ...]) -> dict[int, str]:
    """Index of each row that is not a valid point -> why. `values` begins with the times."""
    wrong = {}
    if None in values[0]:
        wrong = {at: "the row has no time" for at, time in enumerate(values[0]) if time is None}
    for column, own in zip(columns, values[1:], strict=True):
        # A sum is finite only if all values are; it costs a tenth of checking each value.
        if column.type == "float" and not isfinite(sum(filter(None, own))):
            wrong.update((at, f"{column.name} is {value!r}, which no field can hold") for at, value in enumerate(own)
                         if value is not None and not isfinite(value))
        elif column.type == "unsigned" and min(filter(None, own), default=0) < 0:
            wrong.update((at, f"{column.name} is {value!r}, and not unsigned") for at, value in enumerate(own)
                         if value is not None and value < 0)
    return dict(sorted(wrong.items()))
