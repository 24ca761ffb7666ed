"""Patterns of measurements: only `*` and `?` are special."""

import pytest

from pipeline.config.patterns import matches_any


@pytest.mark.parametrize(("pattern", "name", "expected"), [
    ("a[1]", "a[1]", True), ("a[1]", "a1", False), ("a[!b]*", "a[!b]c", True), ("[", "[", True), ("a]", "a]", True),
    ("*", "", True), ("a?c", "abc", True), ("a?c", "ac", False), ("A*", "abc", False), ("a.c", "abc", False),
    ("a*c", "a\nc", True), ("cpu", "cpu2", False)])
def test_a_pattern_matches_a_whole_name(pattern: str, name: str, expected: bool) -> None:
    assert matches_any(name, ["other", pattern]) is expected
