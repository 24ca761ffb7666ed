"""The conditions of rules: what they mean, and what is said of those that cannot be read."""

from typing import Any

import pytest

from stages.mapping.records.conditions import BadCondition, compile_condition, paths_of

FACTS: dict[str, Any] = {"status": "test", "temperature": 6.5, "count": 3, "ok": True, "gone": None, "a.b": 1,
                         "odd key": "x", "nan": float("nan"), "meta": {"x": 1}, "big": 2**60 + 1}


@pytest.mark.parametrize(("condition", "expected"), [
    ("status == 'test'", True), ('status == "test"', True), ("status != 'test'", False), ("status == 'Test'", False),
    ("temperature > 5", True), ("temperature > 6.5", False), ("temperature >= 6.5", True), ("5 < temperature", True),
    ("temperature < -1e3", False), ("count <= 3", True), ("count == 3.0", True), ("a.b == 1", True),
    ("big == 1152921504606846977", True), ("big == 1152921504606846976", False),
    ("ok", True), ("not ok", False), ("status", False), ("ok == true", True), ("ok == 1", False),
    ("count == '3'", False), ("status > 5", False), ("status < 'u'", True), ("nan == nan", False), ("nan > 1", False),
    ("missing == null", True), ("gone == null", True), ("missing != 'x'", True), ("missing > 1", False),
    ("exists(status)", True), ("exists(missing)", False), ("exists(gone)", False), ("exists(meta)", True),
    ("status in ['test', 'dev']", True), ("status not in ['test']", False), ("count in [1, 2, null]", False),
    ("missing in [null]", True), ("`odd key` == 'x'", True),
    ("status == 'test' and not (temperature > 5)", False), ("status == 'x' or count == 3 and ok", True),
    ("(status == 'x' or count == 3) and not ok", False), ("not not ok", True), ("'it\\'s' == \"it's\"", True),
    ("exists == null", True), ("status matches '^te'", True), ("status matches 'TE'", False),
    ("status matches '(?i)TE'", True), (r"status matches '\w{4}'", True), ("count matches '3'", False),
    ("missing matches ''", False), ("status like 'te*'", True), ("status like 'e*'", False),
    ("status like 't??t'", True),
    ("status like 't[e]st'", False), ("status not like 'x*'", True), ("status not matches 'x'", True),
    ("'it\\'s' matches 't\\'s'", True), ("matches == null and like == null", True), ("topic == null", True),
    ("topic() == null", True), ("header('a') == null", True), ("header(a-b) like '*'", False),
])
def test_a_condition_means_what_it_says(condition: str, expected: bool) -> None:
    assert compile_condition(condition)(FACTS.get) is expected


@pytest.mark.parametrize(("condition", "column", "words"), [
    ("", 1, "the condition ends here"), ("status = 'x'", 8, "'=' is not expected here"), ("status == ", 10, "ends"),
    ("status == 'x", 11, '"\'" is not expected'), ("(ok", 4, "give )"), ("ok)", 3, "give and, or, or the end"),
    ("status in [a]", 12, "give a number"), ("status in []", 12, "give a path or a value"), ("5", 2, "a comparison"),
    ("exists(5)", 8, "give a path"), ("ok and and ok", 8, "and is not expected"), ("status not 'x'", 12, "give in"),
    ("status matches '('", 16, "regular expression (RE2)"), ("status matches '(?=x)'", 16, "regular expression"),
    ("status matches '(a{1000}){1000}'", 16, "regular expression"), ("status like x", 13, "give a text in quotes"),
    ("status matches", 15, "give a text"), ("header(5) == 'x'", 8, "name of a header"),
    ("header('a' == 'x'", 12, "give )"), ("topic(x) == 'a'", 7, "give )"),
    ("__import__('os')", 11, "( is not expected"), ("a; b", 2, "';' is not expected"), ("1.2.3 == a", 1, "'1'"),
    ("not " * 60 + "ok", 201, "nested deeper than 50"), ("((" * 60 + "ok", 51, "nested deeper"),
])
def test_what_cannot_be_read_is_pointed_at(condition: str, column: int, words: str) -> None:
    with pytest.raises(BadCondition) as caught:
        compile_condition(condition)
    first, *_, last = str(caught.value).splitlines()
    assert first.startswith(f"column {column}:"), str(caught.value)
    assert words in first
    assert last == "  " + " " * (column - 1) + "^"


def test_the_paths_that_are_asked_for_are_known() -> None:
    assert paths_of("exists(a.b) and c > 1 or `d e` in [1]") == ["a.b", "c", "d e"]
