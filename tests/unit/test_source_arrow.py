"""What Arrow's types, missing values and odd floats become; and what is refused."""

from typing import Any

import pyarrow as pa
import pytest

from pipeline.points.field_type import FieldType
from pipeline.points.table import Column, Table
from pipeline.points.times import MAX_TIME
from stages.languages.arrow import ArrowAnswerReader, ArrowDialect
from stages.languages.language import QueryError

NAN, INF = float("nan"), float("inf")
TAG = {"iox::column::type": "iox::column_type::tag"}


def read(columns: dict[str, pa.Array], own: ArrowDialect | None = None, known: tuple[Column, ...] = (),
         metadata: dict[str, dict[str, str]] | None = None, before: int = MAX_TIME) -> Table:
    """The rows of an answer in one batch."""
    schema = pa.schema([pa.field(name, array.type, metadata=(metadata or {}).get(name))
                        for name, array in columns.items()])
    dialect = own or ArrowDialect("db", "sql", custom=True)
    answer_reader = dialect.answer_reader()
    answer_reader.feed(pa.RecordBatch.from_arrays(list(columns.values()), schema=schema))
    [table] = dialect.tables("m", known, answer_reader.finish(complete=True).body, before)
    return table


def times(*nanoseconds: int | None) -> pa.Array:
    """A column of times."""
    return pa.array(nanoseconds, pa.timestamp("ns"))


@pytest.mark.parametrize(("array", "kind", "value"), [
    (pa.array([2**63 - 1]), "integer", 2**63 - 1), (pa.array([2**53 + 1]), "integer", 2**53 + 1),
    (pa.array([-128], pa.int8()), "integer", -128), (pa.array([2**64 - 1], pa.uint64()), "unsigned", 2**64 - 1),
    (pa.array([7], pa.uint16()), "unsigned", 7), (pa.array([0.1]), "float", 0.1), (pa.array([-0.0]), "float", -0.0),
    (pa.array([5e-324]), "float", 5e-324), (pa.array([0.5], pa.float32()), "float", 0.5),
    (pa.array([True]), "boolean", True), (pa.array(["ü\n"]), "string", "ü\n"),
    (pa.array(["x"], pa.large_string()), "string", "x"), (pa.array(["x"], pa.string_view()), "string", "x")], ids=str)
def test_every_type_that_a_field_has_is_kept_exactly(array: pa.Array, kind: FieldType, value: Any) -> None:
    table = read({"time": times(1), "f": array})
    assert table.columns == (Column("f", "field", kind),)
    assert [repr(row) for row in table.rows] == [repr((1, value))]


@pytest.mark.parametrize(("array", "expected"), [
    (times(-1, 2**62 + 1), [-1, 2**62 + 1]), (pa.array([1, -2], pa.timestamp("s")), [10**9, -2 * 10**9]),
    (pa.array([1, 2], pa.timestamp("us", "UTC")), [1_000, 2_000]),
    (pa.array([1, 2], pa.timestamp("ns", "Europe/Berlin")), [1, 2])], ids=str)
def test_times_of_every_unit_and_zone_are_nanoseconds(array: pa.Array, expected: list[int]) -> None:
    table = read({"f": pa.array([1.0, 2.0]), "time": array})
    assert [row[0] for row in table.rows] == expected


def test_a_tag_is_known_by_metadata_dictionary_or_configuration() -> None:
    columns = {"time": times(1, 2), "a": pa.array(["x", None]), "b": pa.array(["y", "z"]).dictionary_encode(),
               "c": pa.array([1, 2]), "d": pa.array(["w", "v"]), "e": pa.array(["k", "l"]).dictionary_encode()}
    own = ArrowDialect("db", "sql", types={"e": "string"}, tags=("c",), custom=True)
    table = read(columns, own, metadata={"a": TAG})
    assert [(column.name, column.kind) for column in table.columns] == [
        ("a", "tag"), ("b", "tag"), ("c", "tag"), ("d", "field"), ("e", "field")]
    assert table.rows == [(1, "x", "y", "1", "w", "k"), (2, None, "z", "2", "v", "l")]
    known = (Column("a", "tag", "string"), Column("d", "field", "string"))
    table = read({"time": times(1), "a": pa.array(["x"]), "d": pa.array(["y"])}, known=known)
    assert table.columns == known


def test_dictionaries_may_differ_from_batch_to_batch() -> None:
    dialect = ArrowDialect("db", "sql")
    answer_reader = dialect.answer_reader()
    schema = pa.schema([("time", pa.timestamp("ns")), ("t", pa.dictionary(pa.int32(), pa.string())), ("f", pa.int64())])
    for values in (["a", "b"], ["c", None], ["b", "a"]):
        answer_reader.feed(pa.RecordBatch.from_arrays(
            [times(1, 2), pa.array(values).dictionary_encode(), pa.array([1, 2])], schema=schema))
    found = dialect.tables("m", (), answer_reader.finish(complete=True).body, MAX_TIME)
    assert [row[1] for table in found for row in table.rows] == ["a", "b", "c", None, "b", "a"]


def test_what_no_message_can_hold_costs_its_row_and_not_its_page() -> None:
    table = read({"time": times(1, 2, 3, None, 5), "f": pa.array([1.0, NAN, None, 4.0, -INF])})
    assert table.rows == [(1, 1.0), (3, None)]
    assert [(bad.reason, bad.detail) for bad in table.bad] == [
        ("bad_value", "f is nan, which no field can hold"), ("bad_value", "the row has no time"),
        ("bad_value", "f is -inf, which no field can hold")]
    assert read({"time": times(1, 2), "f": pa.array([1e308, 1e308])}).rows == [(1, 1e308), (2, 1e308)]


def test_rows_of_the_next_page_are_left_for_it_also_the_bad_ones() -> None:
    table = read({"time": times(1, 5, 2, 5), "f": pa.array([1.0, 2.0, 3.0, NAN])}, before=5)
    assert (table.rows, table.bad) == ([(1, 1.0), (2, 3.0)], [])


def test_the_types_of_the_configuration_hold_for_integers_only() -> None:
    own = ArrowDialect("db", "sql", types={"f": "float", "u": "unsigned"}, custom=True)
    table = read({"time": times(1, 2), "f": pa.array([3, None]), "u": pa.array([4, -5])}, own)
    assert [repr(row) for row in table.rows] == ["(1, 3.0, 4)"]
    assert [bad.detail for bad in table.bad] == ["u is -5, and not unsigned"]
    with pytest.raises(QueryError, match="column f is string, and in types float; correct types"):
        read({"time": times(1), "f": pa.array(["x"])}, own)


@pytest.mark.parametrize(("columns", "words"), [
    ({"f": pa.array([1.0])}, "no column time"), ({"time": pa.array(["x"]), "f": pa.array([1.0])}, "no column time"),
    ({"time": times(1), "d": pa.array([[1]])}, "column d has the type list<item: int64>, which no field has; cast it"),
    ({"time": times(1), "at": times(2)}, "column at has the type timestamp"),
    ({"time": pa.array([2**62], pa.timestamp("s")), "f": pa.array([1.0])}, "out of range")])
def test_what_no_point_can_be_made_of_is_refused_as_a_whole(columns: dict[str, pa.Array], words: str) -> None:
    with pytest.raises(QueryError, match=words) as refused:
        read(columns)
    assert not refused.value.retryable


def test_two_columns_of_one_name_are_refused() -> None:
    schema = pa.schema([("time", pa.timestamp("ns")), ("a", pa.int64()), ("a", pa.int64())])
    with pytest.raises(QueryError, match="two columns a"):
        ArrowDialect("db", "sql").answer_reader().feed(pa.RecordBatch.from_pylist([], schema=schema))


def test_a_damaged_batch_is_asked_for_again() -> None:
    offsets = b"".join(offset.to_bytes(4, "little") for offset in (0, 9, 1))
    damaged = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(b"x")])
    with pytest.raises(QueryError, match="damaged") as refused:
        ArrowAnswerReader(ordered=False).feed(pa.RecordBatch.from_arrays([damaged], ["s"]))
    assert refused.value.retryable
