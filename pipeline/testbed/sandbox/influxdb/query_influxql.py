"""InfluxQL as the sandbox understands it, answered as InfluxDB 1.6.7 answers `/query` with chunked=true and epoch=ns.

    SHOW MEASUREMENTS; SHOW RETENTION POLICIES ON "b"; SHOW TAG KEYS FROM "m"; SHOW FIELD KEYS FROM "m"
    SELECT "a"::tag, "f"::float FROM "m" [WHERE time >= 1 AND time < 2] [ORDER BY time ASC] [LIMIT 3]
    SELECT "x" FROM "x" WHERE time = 0 LIMIT 1
    SELECT * FROM "m" WHERE time >= 1 AND time < 2 LIMIT 1
"""

from decimal import Decimal
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

from pipeline.testbed.sandbox.influxdb import answers
from pipeline.testbed.sandbox.influxdb.http1 import Request, Response
from pipeline.testbed.sandbox.influxdb.lines import MAX_TIME, MIN_TIME, FieldValue
from pipeline.testbed.sandbox.influxdb.query import Found, NotUnderstood, Reader, Selection, answered, select
from pipeline.testbed.sandbox.influxdb.store import Bucket

DEFAULT_CHUNK_SIZE = 10_000
_NUMBERS = ("float", "integer", "unsigned")


def respond(request: Request, buckets: dict[str, Bucket], headers: tuple[tuple[str, str], ...]) -> Response:
    """The answer to `/query`."""
    form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
    query = {**request.query, **form}
    if not query.get("q"):
        return Response(400, answers.go_json({"error": 'missing required parameter "q"'}) + b"\n", headers)
    bucket = buckets.get(query.get("db", ""))
    if bucket is None:
        words = f"database not found: {query['db']}" if query.get("db") else "database name required"
        return answered(request, answers.go_json({"results": [{"statement_id": 0, "error": words}]}) + b"\n", headers)
    try:
        return answered(request, run(bucket, query), headers)
    except NotUnderstood as error:
        return Response(400, answers.go_json({"error": f"error parsing query: {error}"}) + b"\n", headers)


def run(bucket: Bucket, query: dict[str, str]) -> bytes:
    """The answer to `q`, one JSON object a line. Raises NotUnderstood."""
    if query.get("chunked") != "true" or query.get("epoch") != "ns":
        raise NotUnderstood("only chunked=true and epoch=ns are understood")
    size = int(query["chunk_size"]) if query.get("chunk_size", "").isdigit() else DEFAULT_CHUNK_SIZE
    out = []
    reader = Reader(query.get("q", ""))
    for number in count():
        chunks = _statement(bucket, reader, size)
        for index, (series, partial) in enumerate(chunks):
            more = partial or index < len(chunks) - 1
            result = {"statement_id": number, **({"series": [series]} if series else {}),
                      **({"partial": True} if more else {})}
            out.append(answers.go_json({"results": [result]}) + b"\n")
        if reader.done():
            break
        reader.need(";")
    return b"".join(out)


def _statement(bucket: Bucket, reader: Reader, size: int) -> list[tuple[dict[str, Any] | None, bool]]:
    """Series, and whether each is cut off by the chunk's size."""
    if reader.take("SHOW MEASUREMENTS"):
        return _list("measurements", ["name"], [[name] for name in bucket.measurements()])
    if reader.take("SHOW RETENTION POLICIES ON"):
        reader.name()
        return [({"columns": ["name", "duration", "shardGroupDuration", "replicaN", "default"],
                  "values": [["autogen", "0s", "168h0m0s", 1, True]]}, False)]
    if reader.take("SHOW TAG KEYS FROM"):
        name = _measurement(reader)
        return _list(name, ["tagKey"], [[key] for key in bucket.tag_keys(name)])
    if reader.take("SHOW FIELD KEYS FROM"):
        name = _measurement(reader)
        return _list(name, ["fieldKey", "fieldType"], [list(pair) for pair in bucket.field_keys(name).items()])
    reader.need("SELECT")
    return _select(bucket, reader, size)


def _list(name: str, columns: list[str], values: list[list[str]]) -> list[tuple[dict[str, Any] | None, bool]]:
    return [({"name": name, "columns": columns, "values": sorted(values)} if values else None, False)]


def _measurement(reader: Reader) -> str:
    """`"m"` or `"policy"."m"`."""
    name = reader.name()
    return reader.name() if reader.take(r"\.") else name


def _select(bucket: Bucket, reader: Reader, size: int) -> list[tuple[dict[str, Any] | None, bool]]:
    columns: list[tuple[str, str]] = []
    everything = reader.take(r"\*")
    while not everything:
        name = reader.name()
        columns.append((name, reader.need("tag|float|integer|unsigned|boolean|string") if reader.take("::") else ""))
        if not reader.take(","):
            break
    reader.need("FROM")
    measurement = _measurement(reader)
    if everything:
        columns = [*((key, "tag") for key in bucket.tag_keys(measurement)),
                   *((key, "") for key in bucket.field_keys(measurement))]
    start, end, limit = MIN_TIME, MAX_TIME + 1, 0
    if reader.take("WHERE"):
        while True:
            reader.need("time")
            operator, time = reader.need(">=|<|="), int(reader.need(r"-?\d+"))
            start = time if operator in (">=", "=") else start
            end = time if operator == "<" else time + 1 if operator == "=" else end
            if not reader.take("AND"):
                break
    reader.take("ORDER BY time ASC")
    if reader.take("LIMIT"):
        limit = int(reader.need(r"\d+"))
    # A row of nothing but tags and nulls is none; it does not count for the limit.
    rows = []
    for point in select(bucket, Selection(measurement, start, end)):
        values = _values(point, columns)
        if any(value is not None for value, (_, kind) in zip(values, columns, strict=True) if kind != "tag"):
            rows.append([point.time, *values])
            if len(rows) == limit:
                break
    names = ["time"]
    for name, _ in columns:
        again = [column for column, _ in columns[:len(names) - 1]].count(name)
        names.append(f"{name}_{again}" if again else name)
    return [({"name": measurement, "columns": names, "values": rows[at:at + size],
              **({"partial": True} if at + size < len(rows) else {})}, at + size < len(rows))
            for at in range(0, len(rows), size)] or [(None, False)]


def _values(point: Found, columns: list[tuple[str, str]]) -> list[FieldValue | None]:
    return [point.tags.get(name) if kind == "tag" else _cast(point, name, kind) for name, kind in columns]


def _cast(point: Found, name: str, kind: str) -> FieldValue | None:
    """`"name"::kind`: numbers become one another, all else is null."""
    own = point.types.get(name)
    if own is None or kind in ("", own):
        value = point.fields.get(name)
    elif kind in _NUMBERS and own in _NUMBERS:
        value = float(point.fields[name]) if kind == "float" else int(point.fields[name])
    else:
        return None
    # Go prints a float that is whole without a point, in as few digits as tell it from others.
    return int(Decimal(repr(value))) if isinstance(value, float) and value.is_integer() and abs(value) < 1e21 \
        and repr(value) != "-0.0" else value
