"""The sandbox's parser of line protocol. tests/data/lines.ndjson is what InfluxDB 1.6.7 says of each body in it;
tests/servers/test_sandbox_lines_against_influxdb1.py compares the two.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.testbed.sandbox.influxdb import lines_v3
from pipeline.testbed.sandbox.influxdb.lines import LineError, Point, line_end, parse_line, parse_lines
from pipeline.testbed.sandbox.influxdb.store import Bucket

TABLE = [json.loads(line) for line in (Path(__file__).parents[1] / "data/lines.ndjson").read_text().split("\n") if line]
NOW = 1_700_000_000_000_000_000


def shown(line: str, result: Point | LineError) -> dict[str, Any]:
    """A result as the table has it."""
    if isinstance(result, LineError):
        return {"error": f"unable to parse '{line}': {result}"}
    return {"measurement": result.measurement, "tags": [list(tag) for tag in result.tags], "fields": result.fields,
            "types": result.types, "time": result.time}


@pytest.mark.parametrize("row", TABLE, ids=[row["body"][:40] for row in TABLE])
def test_a_body_is_read_as_influxdb_reads_it(row: dict[str, Any]) -> None:
    found = [shown(line, result) for line, result in parse_lines(row["body"].encode(), unsigned=False)]
    assert json.dumps(found) == json.dumps(row["lines"])


@pytest.mark.parametrize("row", TABLE, ids=[row["body"][:40] for row in TABLE])
def test_the_store_reads_a_body_as_the_parser_does(row: dict[str, Any]) -> None:
    bucket = Bucket("b")
    expected: dict[str, dict[str, Any]] = {}
    for line in row["lines"]:
        if "error" not in line:
            time = NOW if line["time"] is None else line["time"]
            point = expected.setdefault(json.dumps([line["measurement"], line["tags"], time]),
                                        {**line, "fields": {}, "types": {}, "time": time})
            point["fields"] |= line["fields"]
            point["types"] |= line["types"]
    for _ in range(3):
        batch = bucket.parse(row["body"].encode(), 1, NOW, unsigned=False)
        bucket.store(batch, NOW)
        stored = [{"measurement": point.measurement, "tags": [list(tag) for tag in point.tags],
                   "fields": point.fields, "types": point.types, "time": point.time} for point in bucket.points()]
        assert stored == list(expected.values())
        assert [f"unable to parse '{bad.line}': {bad.reason}" for bad in batch.bad] == [
            line["error"] for line in row["lines"] if "error" in line]


OF_INFLUXDB3 = [json.loads(line) for line in
                (Path(__file__).parents[1] / "data/influxdb3-lines.ndjson").read_text().split("\n") if line]


@pytest.mark.parametrize("kind", ["m,k=", "m,", "m ", ""])
def test_influxdb_3_reads_backslashes_and_tabs_as_its_own_parser_did(kind: str) -> None:
    """Each row of the table: a body, and of each line measurement, tags, fields and time; null where it is refused."""
    rows = [row for row in OF_INFLUXDB3 if row[0].startswith(kind)]
    assert len(rows) > 10
    for body, expected in rows:
        bucket = Bucket("b")
        bucket.store(bucket.parse(body.encode(), 1, NOW, read=lines_v3.parse_line), NOW)
        assert [[point.measurement, [list(tag) for tag in point.tags], [list(item) for item in point.fields.items()],
                 point.time] for point in bucket.points()] == [
            [line[0], sorted(line[1]), *line[2:]] for line in expected if line is not None], body


@pytest.mark.parametrize(("value", "expected"), [("1u", 1), ("0u", 0), ("18446744073709551615u", 2**64 - 1)])
def test_unsigned_numbers_are_read_where_they_are_known(value: str, expected: int) -> None:
    point = parse_line(f"m f={value} 5")
    assert (point.fields, point.types) == ({"f": expected}, {"f": "unsigned"})


@pytest.mark.parametrize(("value", "reason"), [
    ("-1u", "invalid number"), ("1.5u", "invalid number"), ("1uu", "invalid number"),
    ("18446744073709551616u", "unable to parse unsigned 18446744073709551616: strconv.ParseUint: parsing "
                              '"18446744073709551616": value out of range'),
])
def test_unsigned_numbers_out_of_range_are_refused(value: str, reason: str) -> None:
    with pytest.raises(LineError) as caught:
        parse_line(f"m f={value} 5")
    assert str(caught.value) == reason


def test_a_time_counts_in_the_unit_that_is_given() -> None:
    assert parse_line("m f=1 5", 1_000_000).time == 5_000_000
    assert parse_line("m f=1 -5", 1_000_000_000).time == -5_000_000_000


def test_a_time_that_the_unit_takes_out_of_range_is_refused() -> None:
    with pytest.raises(LineError, match="time outside range -9223372036854775806 - 9223372036854775806"):
        parse_line("m f=1 9223372036855", 1_000_000)
    bucket = Bucket("b")
    for _ in range(2):  # the second line of a kind goes the short way
        batch = bucket.parse(b"m f=1 5\nm f=1 9223372036855\n", 1_000_000, NOW)
        assert (len(batch.entries), len(batch.bad)) == (1, 1)


def test_a_key_longer_than_the_storage_takes_is_refused() -> None:
    with pytest.raises(LineError, match="max key length exceeded: 65540 > 65535"):
        parse_line(f"m,t={'x' * 65_531} f=1 5")


def test_bytes_that_are_no_utf8_keep_their_identity() -> None:
    (_, one), (_, other) = parse_lines(b'm,t=\xff f="\xfe" 5\nm,t=\xfe f="\xfe" 5')
    assert isinstance(one, Point) and isinstance(other, Point)
    assert one.tags != other.tags


def test_a_line_ends_at_the_first_newline_outside_a_string() -> None:
    body = b'm f="a\nb",g=1 5\nm f=2 6'
    assert line_end(body, 0) == body.index(b"\nm f=2")
    assert line_end(body, line_end(body, 0) + 1) == len(body)
