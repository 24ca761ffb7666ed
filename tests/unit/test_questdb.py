"""What is said at the start of tables that keep rows twice."""

import pytest

from stages.influxdb.questdb import dedup_warnings, tables_of


def test_tables_are_read_from_the_answer_of_exec() -> None:
    assert tables_of({"dataset": [["a", True], ["b", False]], "count": 2}) == {"a": True, "b": False}
    assert tables_of({"query": "x", "error": "Invalid column: dedup", "position": 19}) is None
    assert tables_of({"dataset": [["a"], None, ["b", "yes"]]}) == {}


@pytest.mark.parametrize(("tables", "measurement", "words"), [
    ({"readings": True}, "readings", []), ({"Readings": True}, "readings", []),
    ({"readings": False}, "readings", ["ALTER TABLE 'readings' DEDUP ENABLE UPSERT KEYS"]),
    ({}, "readings", ["will create without DEDUP"]), (None, "readings", ["does not report"]),
    ({"a": True, "b": False}, "", ["there are b"]), ({"a": True}, "", ["creates new tables without"])])
def test_a_table_without_dedup_is_warned_of_with_what_to_do(
        tables: dict[str, bool] | None, measurement: str, words: list[str]) -> None:
    found = dedup_warnings(tables, measurement)
    assert len(found) == len(words) and all(part in text for part, text in zip(words, found, strict=True))
