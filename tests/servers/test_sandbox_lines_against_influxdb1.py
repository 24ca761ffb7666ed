"""The sandbox's parser against a real InfluxDB 1.6.7: the same verdict, the same words, the same values."""

import json
import re
from pathlib import Path
from typing import Any

import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.testbed.sandbox.influxdb.lines import LineError, Point, parse_lines

ROWS = (Path(__file__).parents[1] / "data/lines.ndjson").read_text().split("\n")
BODIES = [json.loads(line)["body"] for line in ROWS if line]
#: What random bodies are made of.
TOKENS = ["m", "a", "b", "t", "f", "=", ",", " ", "\\", '"', "\n", "1", "2", "-", ".", "e", "i", "u", "true", '"x"',
          "#", "\t", "é", "0", "E", "+", "N", "\\,", "\\ ", "\\=", '\\"', "\\\\", "m,t=a f=1", 'f="a b" 7', " 5"]
GOOD = ["m f=1 5", 'm,a=b f=1i,g="x y" 5', "m,b=1,a=2 f=t", 'm f="a\\"b",g=2 7', "m f=1e5,g=-2.5 -9",
        "m\\ x,a\\,=b\\= f\\ x=1 5"]
#: InfluxDB 1 stores a measurement with one of these under a name that it doesn't find again.
_LOST_MEASUREMENT = re.compile(r'\\\\[,= "]')
#: What the storage says, not the parser; the points of such a body are not all there.
_BY_STORAGE = ("field type conflict", "invalid field name", "invalid tag key")
Stored = list[tuple[str, tuple[tuple[str, str], ...], dict[str, Any], int | None]]


def real(url: str, session: requests.Session, body: bytes) -> tuple[str, Stored]:
    """What the real server says of a body written to an empty database, and what it has in it then."""
    session.post(f"{url}/query", data={"q": "DROP DATABASE lines; CREATE DATABASE lines"}, timeout=60)
    answer = session.post(f"{url}/write", params={"db": "lines", "precision": "n"}, data=body, timeout=60)
    query = {"db": "lines", "q": "SELECT * FROM /.*/ GROUP BY *", "epoch": "ns"}
    result = session.get(f"{url}/query", params=query, timeout=60).json()["results"][0]
    stored: Stored = []
    for series in result.get("series", []):
        tags = tuple(sorted((key, value) for key, value in series.get("tags", {}).items() if value))
        for time, *values in series["values"]:
            fields = {key: value for key, value in zip(series["columns"][1:], values, strict=True) if value is not None}
            stored.append((series["name"], tags, fields, time))
    return (answer.json()["error"] if answer.content else ""), stored


def ours(body: bytes) -> tuple[str, Stored]:
    """The same, as the sandbox's parser has it; the time is None where the line has none."""
    errors = []
    points: dict[tuple[str, tuple[tuple[str, str], ...], int | None], dict[str, Any]] = {}
    for line, result in parse_lines(body, unsigned=False):
        if isinstance(result, Point):
            points.setdefault((result.measurement, result.tags, result.time), {}).update(result.fields)
        else:
            assert isinstance(result, LineError)
            errors.append(f"unable to parse '{line}': {result}")
    error = "\n".join(errors).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if errors and points:
        error = f"partial write: {error} dropped=0"
    return error, [(name, tags, fields, time) for (name, tags, time), fields in points.items()]


def compare(url: str, session: requests.Session, body: bytes) -> None:
    """Fails unless both say the same and have the same."""
    real_error, real_points = real(url, session, body)
    our_error, our_points = ours(body)
    if any(reason in real_error for reason in _BY_STORAGE):
        return
    assert real_error == our_error, body
    if _LOST_MEASUREMENT.search(body.decode()) or any("" in fields for _, _, fields, _ in our_points):
        return
    if any(time is None for *_, time in our_points):
        real_points = [(*point, None) for *point, _ in real_points]  # type: ignore[misc]
        our_points = [(*point, None) for *point, _ in our_points]  # type: ignore[misc]
    if any(len(kinds) > 1 for kinds in kinds_of_fields(body).values()):
        return  # one query for all measurements gets the values of one kind only
    assert sorted(real_points, key=repr) == sorted(_as_json(our_points), key=repr), body


def kinds_of_fields(body: bytes) -> dict[str, set[str]]:
    """The types that a field has in the lines of a body, whatever their measurements."""
    kinds: dict[str, set[str]] = {}
    for _, result in parse_lines(body, unsigned=False):
        for field, kind in result.types.items() if isinstance(result, Point) else ():
            kinds.setdefault(field, set()).add(kind)
    return kinds


def _as_json(points: Stored) -> Stored:
    """Points as InfluxDB's JSON has them: whole floats are integers, what is no UTF-8 is replaced."""
    def value(field: Any) -> Any:
        if isinstance(field, str):
            return field.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return int(field) if isinstance(field, float) and field == int(field) and abs(field) < 1e21 else field

    return [(name, tags, {key: value(field) for key, field in fields.items()}, time)
            for name, tags, fields, time in points]


def test_a_table_of_lines_is_read_as_the_real_server_reads_it(influxdb1: str) -> None:
    with requests.Session() as session:
        for body in BODIES:
            compare(influxdb1, session, body.encode())


def changed(body: str, changes: list[tuple[int, str]]) -> str:
    """`body` with tokens put in, or characters taken out where the token is empty."""
    for place, token in changes:
        at = place % (len(body) + 1)
        body = body[:at] + token + body[at + (token == ""):]
    return body


MANGLED = st.builds(changed, st.sampled_from(GOOD),
                    st.lists(st.tuples(st.integers(0, 200), st.sampled_from(["", *TOKENS])), min_size=1, max_size=3))
RANDOM = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=14).map("".join)


@settings(max_examples=400)
@given(body=st.one_of(MANGLED, RANDOM))
@example('m,a=b f=1i,g="x y"é 5')
def test_random_lines_are_read_as_the_real_server_reads_them(influxdb1: str, body: str) -> None:
    with requests.Session() as session:
        compare(influxdb1, session, body.encode())
