"""InfluxQL as the sandbox understands it, answered as InfluxDB 1.6.7 answers `/query` with chunked=true and epoch=ns.

    SHOW MEASUREMENTS; SHOW RETENTION POLICIES ON "b"; SHOW TAG KEYS FROM "m"; SHOW FIELD KEYS FROM "m"
    SELECT "a"::tag, "f"::float FROM "m" [WHERE time >= 1 AND time < 2] [ORDER BY time ASC] [LIMIT 3]
    SELECT "x" FROM "x" WHERE time = 0 LIMIT 1; with conditions on tags as of `conditions`
    SELECT * FROM "m" WHERE time >= 1 AND time < 2 LIMIT 1
    SELECT * FROM "m" GROUP BY * LIMIT 1 SLIMIT 3
    SHOW FIELD KEYS FROM "policy"./.*/ LIMIT 1; CREATE RETENTION POLICY "p" ON "b" DURATION 0s REPLICATION 1 [DEFAULT]
    ALTER RETENTION POLICY "p" ON "b" DEFAULT; DROP RETENTION POLICY "p" ON "b"

"m" may be "policy"."m".
"""

from decimal import Decimal
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

from pipeline.testbed.sandbox.influxdb import answers
from pipeline.testbed.sandbox.influxdb.conditions import Holds, read_one
from pipeline.testbed.sandbox.influxdb.http1 import Request, Response
from pipeline.testbed.sandbox.influxdb.lines import MAX_TIME, MIN_TIME, FieldValue
from pipeline.testbed.sandbox.influxdb.query import Found, NotUnderstood, Reader, Selection, answered, select
from pipeline.testbed.sandbox.influxdb.store import Bucket

DEFAULT_CHUNK_SIZE = 10_000
_NUMBERS = ("float", "integer", "unsigned")


class _Refused(Exception):
    """A statement fails; the text is the server's."""


def respond(request: Request, buckets: dict[str, Bucket], headers: tuple[tuple[str, str], ...],
            lists_all: bool = True) -> Response:
    """The answer to `/query`. `lists_all`: SHOW MEASUREMENTS lists those of all retention policies, as InfluxDB 1 does,
    and not only those of the default one."""
    form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
    query = {**request.query, **form}
    if not query.get("q"):
        return Response(400, answers.go_json({"error": 'missing required parameter "q"'}) + b"\n", headers)
    bucket = buckets.get(query.get("db", ""))
    if bucket is None:
        words = f"database not found: {query['db']}" if query.get("db") else "database name required"
        return answered(request, answers.go_json({"results": [{"statement_id": 0, "error": words}]}) + b"\n", headers)
    try:
        return answered(request, run(bucket, query, lists_all), headers)
    except NotUnderstood as error:
        return Response(400, answers.go_json({"error": f"error parsing query: {error}"}) + b"\n", headers)


def run(database: Bucket, query: dict[str, str], lists_all: bool = True) -> bytes:
    """The answer to `q`, one JSON object a line. Raises NotUnderstood."""
    if query.get("chunked") != "true" or query.get("epoch") != "ns":
        raise NotUnderstood("only chunked=true and epoch=ns are understood")
    size = int(query["chunk_size"]) if query.get("chunk_size", "").isdigit() else DEFAULT_CHUNK_SIZE
    out = []
    reader = Reader(query.get("q", ""))
    for number in count():
        try:
            chunks = _statement(database, reader, size, lists_all)
        except _Refused as error:
            out += [answers.go_json({"results": [{"statement_id": number, "error": words}]}) + b"\n"
                    for words in (str(error), *["not executed"] * reader.text.count(";"))]
            break
        for index, (series, partial) in enumerate(chunks):
            more = partial or index < len(chunks) - 1
            result = {"statement_id": number, **({"series": [series]} if series else {}),
                      **({"partial": True} if more else {})}
            out.append(answers.go_json({"results": [result]}) + b"\n")
        if reader.done():
            break
        reader.need(";")
    return b"".join(out)


def _statement(database: Bucket, reader: Reader, size: int,
               lists_all: bool) -> list[tuple[dict[str, Any] | None, bool]]:
    """Series, and whether each is cut off by the chunk's size. Raises _Refused."""
    if reader.take("SHOW MEASUREMENTS"):
        listed = database.policies.values() if lists_all else [_policy(database, "")]
        return _list("measurements", ["name"], [[name] for name in {name for one in listed
                                                                    for name in one.measurements()}])
    if reader.take("SHOW RETENTION POLICIES ON"):
        reader.name()
        return [({"columns": ["name", "duration", "shardGroupDuration", "replicaN", "default"],
                  "values": [[name, "0s", "168h0m0s", 1, name == database.default_policy]
                             for name in sorted(database.policies)]}, False)]
    if verb := reader.take("(?:CREATE|ALTER|DROP) RETENTION POLICY"):
        _change_policy(database, reader, verb.split()[0])
        return [(None, False)]
    if reader.take("SHOW TAG KEYS FROM"):
        name, points = _measurement(database, reader)
        # InfluxDB 1 has one index for all policies; InfluxDB 2 answers for the default one.
        listed = database.policies.values() if lists_all else [_policy(database, "")]
        return _list(name, ["tagKey"], [[key] for key in {key for one in listed for key in one.tag_keys(name)}])
    if reader.take("SHOW FIELD KEYS FROM"):
        if found := reader.take(r'"(?:[^"\\]|\\.)*"\./\.\*/'):
            limit = int(reader.need(r"\d+")) if reader.take("LIMIT") else None
            return _all_field_keys(_policy(database, Reader(found).name()), limit)
        name, points = _measurement(database, reader)
        return _list(name, ["fieldKey", "fieldType"], [list(pair) for pair in points.field_keys(name).items()])
    reader.need("SELECT")
    return _select(database, reader, size)


def _change_policy(database: Bucket, reader: Reader, verb: str) -> None:
    name = reader.name()
    reader.need("ON")
    reader.name()
    if verb == "DROP":
        database.policies.pop(name, None)
        return
    if verb == "CREATE":
        reader.need("DURATION 0s REPLICATION 1")
        database.policies.setdefault(name, Bucket(f"{database.name}/{name}"))
    _policy(database, name)
    if reader.take("DEFAULT"):
        database.default_policy = name


def _policy(database: Bucket, name: str) -> Bucket:
    """The points of a policy; "" is the default one. Raises _Refused."""
    found = database.policy(name)
    if found is None:
        raise _Refused(f"retention policy not found: {name}")
    return found


def _all_field_keys(points: Bucket, limit: int | None) -> list[tuple[dict[str, Any] | None, bool]]:
    """Of each measurement, at most `limit`."""
    return [({"name": name, "columns": ["fieldKey", "fieldType"],
              "values": [list(pair) for pair in points.field_keys(name).items()][:limit]}, False)
            for name in points.measurements()] or [(None, False)]


def _list(name: str, columns: list[str], values: list[list[str]]) -> list[tuple[dict[str, Any] | None, bool]]:
    return [({"name": name, "columns": columns, "values": sorted(values)} if values else None, False)]


def _measurement(database: Bucket, reader: Reader) -> tuple[str, Bucket]:
    """`"m"` or `"policy"."m"`: the name, and where its points are. Raises _Refused."""
    name = reader.name()
    return (reader.name(), _policy(database, name)) if reader.take(r"\.") else (name, _policy(database, ""))


def _select(database: Bucket, reader: Reader, size: int) -> list[tuple[dict[str, Any] | None, bool]]:
    columns: list[tuple[str, str]] = []
    everything = reader.take(r"\*")
    while not everything:
        name = reader.name()
        columns.append((name, reader.need("tag|float|integer|unsigned|boolean|string") if reader.take("::") else ""))
        if not reader.take(","):
            break
    reader.need("FROM")
    measurement, bucket = _measurement(database, reader)
    if everything:
        columns = [*((key, "tag") for key in bucket.tag_keys(measurement)),
                   *((key, "") for key in bucket.field_keys(measurement))]
    start, end, limit = MIN_TIME, MAX_TIME + 1, 0
    conditions: list[Holds] = []
    if reader.take("WHERE"):
        while True:
            if not reader.take("time"):
                conditions.append(read_one(reader, "influxql"))
                if not reader.take("AND"):
                    break
                continue
            operator, time = reader.need(">=|<|="), int(reader.need(r"-?\d+"))
            start = time if operator in (">=", "=") else start
            end = time if operator == "<" else time + 1 if operator == "=" else end
            if not reader.take("AND"):
                break
    reader.take("ORDER BY time ASC")
    if everything and reader.take(r"GROUP BY \* LIMIT 1 SLIMIT"):
        return _groups(bucket, measurement, int(reader.need(r"\d+")))
    if reader.take("LIMIT"):
        limit = int(reader.need(r"\d+"))
    # A row of nothing but tags and nulls is none; it does not count for the limit.
    rows = []
    for point in select(bucket, Selection(measurement, start, end, conditions=tuple(conditions))):
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


def _groups(bucket: Bucket, measurement: str, most: int) -> list[tuple[dict[str, Any] | None, bool]]:
    """The first point of each of the first series, each with all tag keys."""
    keys, fields = bucket.tag_keys(measurement), list(bucket.field_keys(measurement))
    first: dict[tuple[str, ...], Found] = {}
    for point in select(bucket, Selection(measurement, MIN_TIME, MAX_TIME + 1)):
        first.setdefault(tuple(point.tags.get(key, "") for key in keys), point)
    return [({"name": measurement, **({"tags": dict(zip(keys, own, strict=True))} if keys else {}),
              "columns": ["time", *fields], "values": [[point.time, *_values(point, [(name, "") for name in fields])]]},
             False) for own, point in sorted(first.items())[:most]] or [(None, False)]


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
