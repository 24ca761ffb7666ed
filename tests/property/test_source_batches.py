"""Rows that are encoded at once give the same messages as one by one, whatever the names and values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.source_schema import Format
from pipeline.points.table import Column, Row, Table, sort_columns
from pipeline.points.times import MIN_TIME
from stages.convert.payloads import Dedupe, PageMessages, PointEncoder

FORMATS: list[Format] = ["json", "line_protocol", "msgpack"]
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    "float": st.floats(), "integer": st.integers(-(2**63), 2**63 - 1), "unsigned": st.integers(0, 2**64 - 1),
    "boolean": st.booleans(), "string": st.text(max_size=6)}
#: Has every row encoded one by one, since all may have been sent before.
ONE_BY_ONE = Dedupe(MIN_TIME, {}, MIN_TIME)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    tags = [Column(name, "tag", "string") for name in draw(st.lists(NAMES, max_size=3, unique=True))]
    kinds = st.lists(st.tuples(NAMES, st.sampled_from(sorted(VALUES))), min_size=1, max_size=5, unique=True)
    columns = sort_columns([*tags, *(Column(name, "field", kind) for name, kind in draw(kinds))])
    rows = st.tuples(st.integers(0, 2**62), *(
        st.one_of(st.none(), st.sampled_from(["", "a", "ä b", 'c"\\'])) if column.kind == "tag" else
        st.one_of(st.none(), VALUES[column.type]) for column in columns))
    return Table(draw(st.sampled_from(["m", "m ,é"])), columns, draw(st.lists(rows, max_size=8)))


def encoded(table: Table, format_: Format, long: bool, max_bytes: int, dedupe: Dedupe | None) -> PageMessages:
    out = PageMessages()
    PointEncoder(table.measurement, table.columns, format_, long, max_bytes).encode(table, dedupe, out)
    return out


@given(tables(), st.sampled_from(FORMATS), st.booleans(), st.sampled_from([60, 10**6]))
def test_rows_at_once_and_one_by_one_give_the_same(table: Table, format_: Format, long: bool, max_bytes: int) -> None:
    at_once = encoded(table, format_, long, max_bytes, None)
    each = encoded(table, format_, long, max_bytes, ONE_BY_ONE)
    assert (at_once.payloads, at_once.series, at_once.points, at_once.bad) == (
        each.payloads, each.series, each.points, each.bad)


@pytest.mark.parametrize("format_", FORMATS)
def test_one_bad_number_among_many_costs_its_row(format_: Format) -> None:
    rows: list[Row] = [(time, 1.5) for time in range(1_000)]
    rows[500] = (500, float("nan"))
    made = encoded(Table("m", (Column("f", "field", "float"),), rows), format_, False, 10**6, None)
    if format_ == "msgpack":
        assert (made.points, made.bad) == (1_000, [])
    else:
        assert made.points == 999
        assert [bad.detail for bad in made.bad] == ["nan is not a number that a message can hold"]


@pytest.mark.parametrize("format_", FORMATS)
def test_thousands_of_fields(format_: Format) -> None:
    columns = tuple(Column(f"f{number:04}", "field", "integer") for number in range(5_000))
    table = Table("m", columns, [(1, *range(5_000))])
    made = encoded(table, format_, False, 10**6, None)
    assert made.points == 1 and not made.bad
    assert made.payloads == encoded(table, format_, False, 10**6, ONE_BY_ONE).payloads
