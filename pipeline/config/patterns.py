"""Patterns of names with `*` (any text) and `?` (any character); all other characters stand for themselves. Pure."""

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase, translate


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether the whole name matches one of the patterns."""
    # A bracket would begin a set of characters.
    return any(fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in patterns)


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern rather than one name."""
    return "*" in name or "?" in name


def compiled(pattern: str) -> Callable[[str], object]:
    """A function that says whether the whole of a text matches the pattern, by what is true or false."""
    return re.compile(translate(pattern.replace("[", "[[]"))).match
