"""SQL and InfluxQL as the sandbox understands them, for InfluxDB 3's `/api/v3/query_*` and its Flight service.

    SELECT table_name FROM information_schema.tables WHERE table_schema = 'iox'
    SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'iox' AND table_name = 'm'
    SELECT time, "a", "f" FROM "m" [WHERE time >= TIMESTAMP '...' AND time < TIMESTAMP '...'] ORDER BY time ASC
    [LIMIT 3]

The last one in InfluxQL, too, with integers for the times. There a row needs a field, columns that are not there are
null, and LIMIT counts the values of each field: 3.9.6 answers with more rows, and with fields left out of some.

Sources: recorded from InfluxDB 3 Core 3.9.6; tests/servers/test_sandbox_answers_against_influxdb3.py compares.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from pipeline.testbed.sandbox.influxdb.conditions import Holds, read_one
from pipeline.testbed.sandbox.influxdb.lines import MAX_TIME, MIN_TIME
from pipeline.testbed.sandbox.influxdb.query import ONLY, NotUnderstood, Reader, Selection, select
from pipeline.testbed.sandbox.influxdb.store import Bucket

#: Arrow types as information_schema spells them.
TAG, TIME, TEXT = "Dictionary(Int32, Utf8)", "Timestamp(ns)", "Utf8"
#: Of columns that are no table's: of a column that InfluxQL asks for and that is not there, and of strings.
NULL, WORDS = "Null", "words"
_ARROW = {"tag": TAG, "timestamp": TIME, "field::float": "Float64", "field::integer": "Int64",
          "field::uinteger": "UInt64", "field::string": TEXT, "field::boolean": "Boolean"}
#: Powers of ten, from the first to before the last, with which a float is written without an exponent.
PLAIN_EXPONENTS = range(-5, 10)
_PLAIN_NAME = re.compile("[a-z_][a-z0-9_]*")
_EPOCH = datetime(1970, 1, 1)
_TIMESTAMP = r"TIMESTAMP '(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z'"


class Answer(Struct, frozen=True):
    """Rows in their order; what is null is left out of a row. Times are nanoseconds since 1970."""

    #: Columns with their types: `TAG` and so on.
    columns: dict[str, str]
    rows: list[dict[str, Any]]

    def json_array(self) -> bytes:
        """As `/api/v3/query_*` answers with the format json."""
        return b"[" + self.json_lines()[:-1].replace(b"}\n{", b"},{") + b"]"

    def json_lines(self) -> bytes:
        """As `/api/v3/query_*` answers with the format jsonl."""
        names = {name: json.dumps(name, ensure_ascii=False) + ":" for name in self.columns}
        lines = []
        for row in self.rows:
            values = [names[name] + _shown(value, self.columns[name]) for name, value in row.items()]
            lines.append("{" + ",".join(values) + "}\n")
        return "".join(lines).encode("utf-8", "replace")


class QueryError(Exception):
    """What is asked for is not there; the text is the server's."""

    def __init__(self, status: int, words: str) -> None:
        """`status` of the HTTP answer."""
        super().__init__(words)
        self.status = status


def _shown(value: Any, kind: str) -> str:
    """A value as JSON."""
    if kind == TIME:
        return f'"{_time(value)}"'
    return _float(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _time(nanoseconds: int) -> str:
    """A time: its fraction has no, 3, 6 or 9 digits."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    digits = f"{fraction:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return (_EPOCH + timedelta(seconds=seconds)).isoformat() + (f".{digits}" if digits else "")


def _float(value: float) -> str:
    """A float: at least one digit after the point, and an exponent where the number is large or small."""
    if 1e-4 <= abs(value) < 1e10 or value == 0:
        return repr(value)
    number = Decimal(repr(value)).normalize()
    if number.adjusted() in PLAIN_EXPONENTS:
        return format(number, "f")
    sign, digits, _ = number.as_tuple()
    first, *rest = map(str, digits)
    return f"{'-' * sign}{first}.{''.join(rest) or '0'}e{number.adjusted()}"


def run(bucket: Bucket, text: str, language: str) -> Answer:
    """The answer to a query. Raises NotUnderstood, and QueryError."""
    reader = Reader(text)
    if language == "sql" and reader.take(r"SELECT table_name FROM information_schema\.tables "
                                         r"WHERE table_schema = 'iox'"):
        _end(reader)
        return Answer({"table_name": WORDS}, [{"table_name": name} for name in sorted(bucket.columns.tables)])
    if language == "sql" and reader.take(r"SELECT column_name, data_type FROM information_schema\.columns WHERE "
                                         r"table_schema = 'iox' AND table_name ="):
        name = reader.need(r"'(?:[^']|'')*'")[1:-1].replace("''", "'")
        _end(reader)
        return Answer({"column_name": WORDS, "data_type": WORDS},
                      [{"column_name": column, "data_type": kind} for column, kind in _columns(bucket, name).items()])
    reader.need("SELECT time,")
    columns = list(reader.listed())
    reader.need("FROM")
    measurement = reader.name()
    wanted = _bounds(reader, measurement, language)
    _end(reader)
    known = _columns(bucket, measurement)
    if language == "influxql":
        return _influxql(bucket, wanted, columns, known)
    if not known:
        raise QueryError(400, f"Error during planning: table 'public.iox.{measurement}' not found")
    for column in columns:
        if column not in known:
            valid = ", ".join(f"{_identifier(measurement)}.{_identifier(name)}" for name in known)
            raise QueryError(500, f"Schema error: No field named {_identifier(column)}. Valid fields are {valid}.")
    kinds = {"time": TIME, **{name: known[name] for name in columns}}
    return Answer(kinds, list(_rows(bucket, wanted, columns, known)))


def _influxql(bucket: Bucket, wanted: Selection, columns: list[str], known: dict[str, str]) -> Answer:
    fields = [name for name in columns if known.get(name, TAG) != TAG]
    head = {"iox::measurement": wanted.measurement}
    if not fields:
        return Answer({"iox::measurement": WORDS}, [])
    seen: Counter[str] = Counter()
    rows = []
    for row in _rows(bucket, msgspec.structs.replace(wanted, limit=0), columns, known):
        here = [name for name in fields if name in row]
        seen.update(here)
        over = {name for name in here if wanted.limit and seen[name] > wanted.limit}
        if len(over) < len(here):
            rows.append({**head, **{name: value for name, value in row.items() if name not in over}})
    return Answer({"iox::measurement": WORDS, "time": TIME, **{name: known.get(name, NULL) for name in columns}}, rows)


def _rows(bucket: Bucket, wanted: Selection, columns: list[str], known: dict[str, str]) -> Iterator[dict[str, Any]]:
    for point in select(bucket, wanted):
        row: dict[str, Any] = {"time": point.time}
        for column in columns:
            value = point.tags.get(column) if known.get(column) == TAG else point.fields.get(column)
            if value is not None:
                row[column] = value
        yield row


def _identifier(name: str) -> str:
    """A name as SQL's messages have it."""
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _columns(bucket: Bucket, measurement: str) -> dict[str, str]:
    """Columns with their Arrow types, as information_schema has them."""
    found = bucket.columns.tables.get(measurement, {})
    return {name: _ARROW[found[name]] for name in sorted(found)}


def _bounds(reader: Reader, measurement: str, language: str) -> Selection:
    start, end, limit = MIN_TIME, MAX_TIME + 1, 0
    conditions: list[Holds] = []
    if reader.take("WHERE"):
        while True:
            if not reader.take("time"):
                conditions.append(read_one(reader, "sql"))
                if not reader.take("AND"):
                    break
                continue
            operator = reader.need(">=|<")
            if language == "sql":
                text = reader.need(_TIMESTAMP)
                time = _nanoseconds(text.removeprefix("TIMESTAMP '").removesuffix("Z'"))
            else:
                time = int(reader.need(r"-?\d+"))
            start, end = (time, end) if operator == ">=" else (start, time)
            if not reader.take("AND"):
                break
    reader.need("ORDER BY time ASC")
    if reader.take("LIMIT"):
        limit = int(reader.need(r"\d+"))
    return Selection(measurement, start, end, limit, tuple(conditions))


def _nanoseconds(text: str) -> int:
    whole, _, fraction = text.partition(".")
    since = datetime.fromisoformat(whole).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + int(fraction.ljust(9, "0") or "0")


def _end(reader: Reader) -> None:
    if not reader.done():
        raise NotUnderstood(f"{reader.text[:60]!r} is not understood; {ONLY}")
