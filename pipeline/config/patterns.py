"""Patterns of names with `*` (any text) and `?` (any character); all other characters stand for themselves. Pure."""

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether the whole name matches one of the patterns."""
    # A bracket would begin a set of characters.
    return any(fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in patterns)
