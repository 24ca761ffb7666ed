"""Regular expressions and globs over texts of messages: in time by the length of the text, whatever the two hold."""

import importlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, Protocol

from pipeline.config.patterns import compiled

#: Memory of one compiled expression, bytes, at most.
_MAX_BYTES: Final = 8_000_000


class Pattern(Protocol):
    """A regular expression of RE2."""

    #: Named group -> its number; and how many groups there are, with and without names.
    groupindex: dict[str, int]
    groups: int

    def search(self, text: str) -> Any:
        """The first match, or None."""

    def finditer(self, text: str) -> Iterator[Any]:
        """Every match."""

    def sub(self, replacement: str, text: str) -> str:
        """The text with every match replaced."""


class BadPattern(ValueError):
    """The text is no regular expression of RE2."""


@lru_cache(maxsize=1_000)
def regular_expression(text: str) -> Pattern:
    """The expression. Raises BadPattern."""
    re2 = importlib.import_module("re2")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_BYTES
    try:
        pattern: Pattern = re2.compile(text, options)
    except re2.error as error:
        words = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise BadPattern(f"not a regular expression (RE2): {words}") from None
    return pattern


def is_match(value: Any, expression: str) -> bool:
    """Whether a value is a text in which a regular expression is found, anywhere."""
    return isinstance(value, str) and regular_expression(expression).search(value) is not None


_glob = lru_cache(maxsize=1_000)(compiled)


def is_like(value: Any, pattern: str) -> bool:
    """Whether a value is a text that a pattern with `*` and `?` matches as a whole."""
    return isinstance(value, str) and bool(_glob(pattern)(value))
