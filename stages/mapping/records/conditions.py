"""Conditions of `[[mapping.rules]]`: a small language, parsed at start and compiled to closures. Nothing is evaluated.

    condition  = all {"or" all}
    all        = one {"and" one}
    one        = "not" one | "(" condition ")" | "exists" "(" path ")" | comparison
    comparison = operand [("==" | "!=" | "<" | "<=" | ">" | ">=") operand | ["not"] "in" "[" literal {"," literal} "]"]
    operand    = path | literal
    literal    = number | 'text' | "text" | "true" | "false" | "null"
    path       = name {"." name} | `any text between back quotes`

A value that is missing is null. A path alone holds where its value is true. Values of two kinds are never equal, and
neither is before the other; NaN is equal to nothing.
"""

import operator
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

#: Gives the value at a path; None where it is missing or null.
Lookup = Callable[[str], Any]
Condition = Callable[[Lookup], bool]

#: Parentheses and nots within each other, at most.
MAX_DEPTH: Final = 50
_TOKEN = re.compile(r"""\s*(?:
    (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.]))
  | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
  | (?P<quoted>`[^`]+`)
  | (?P<name>[^\W\d](?:[\w.\-]*[\w\-])?)
  | (?P<sign>==|!=|<=|>=|[<>()\[\],])
)""", re.VERBOSE)
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
_WORDS: Final = frozenset(("and", "or", "not", "in"))
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class BadCondition(ValueError):
    """The condition cannot be read; the message points at the column, counted from 1."""

    def __init__(self, text: str, column: int, problem: str) -> None:
        super().__init__(f"column {column}: {problem}\n  {text}\n  {' ' * (column - 1)}^")


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


class _Operand(NamedTuple):
    value: Callable[[Lookup], Any]
    #: The path of one that is a path, for a condition that is a path alone.
    path: str


def compile_condition(text: str) -> Condition:
    """The condition in `text` as a function. Raises BadCondition."""
    return _Parser(text).parse()


def paths_of(text: str) -> list[str]:
    """The paths that a condition asks for. Raises BadCondition."""
    parser = _Parser(text)
    parser.parse()
    return parser.paths


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise BadCondition(text, at + 1, f"{text[at]!r} is not expected here")
        tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1))
        at = match.end()
    return [*tokens, _Token("end", "", end + 1)]


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self.paths: list[str] = []

    def parse(self) -> Condition:
        condition = self._any()
        if self._next.kind != "end":
            raise self._unexpected("and, or, or the end")
        return condition

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _unexpected(self, wanted: str) -> BadCondition:
        token = self._next
        found = "the condition ends" if token.kind == "end" else f"{token.text} is not expected"
        return BadCondition(self._text, token.column, f"{found} here; give {wanted}")

    def _takes(self, text: str) -> bool:
        """Goes past the next token if it is this sign or word."""
        if self._next.text == text and self._next.kind in ("sign", "name"):
            self._at += 1
            return True
        return False

    def _demand(self, text: str) -> None:
        if not self._takes(text):
            raise self._unexpected(text)

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._takes("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda lookup: any(part(lookup) for part in parts)

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._takes("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda lookup: all(part(lookup) for part in parts)

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadCondition(self._text, self._next.column, f"nested deeper than {MAX_DEPTH}")
        try:
            if self._takes("not"):
                inner = self._one()
                return lambda lookup: not inner(lookup)
            if self._takes("("):
                inner = self._any()
                self._demand(")")
                return inner
            if self._next.text == "exists" and self._tokens[self._at + 1].text == "(":
                return self._exists()
            return self._comparison()
        finally:
            self._depth -= 1

    def _exists(self) -> Condition:
        self._at += 2
        path = self._operand().path
        if not path:
            self._at -= 1
            raise self._unexpected("a path")
        self._demand(")")
        return lambda lookup: lookup(path) is not None

    def _comparison(self) -> Condition:
        left, sign = self._operand(), self._next.text
        if self._next.kind == "sign" and (sign in _COMPARE or sign in ("==", "!=")):
            self._at += 1
            return _compared(left.value, sign, self._operand().value)
        if self._takes("not"):
            self._demand("in")
            inner = self._in(left.value)
            return lambda lookup: not inner(lookup)
        if self._takes("in"):
            return self._in(left.value)
        if not left.path:
            raise self._unexpected("a comparison")
        return lambda lookup: left.value(lookup) is True

    def _in(self, value: Callable[[Lookup], Any]) -> Condition:
        self._demand("[")
        choices = [self._literal()]
        while self._takes(","):
            choices.append(self._literal())
        self._demand("]")
        return lambda lookup: any(_equal(value(lookup), choice) for choice in choices)

    def _literal(self) -> Any:
        operand = self._operand()
        if operand.path:
            self._at -= 1
            raise self._unexpected("a number, a text, true, false or null")
        return operand.value(lambda path: None)

    def _operand(self) -> _Operand:
        kind, text, _ = self._next
        if kind in ("end", "sign") or kind == "name" and text in _WORDS:
            raise self._unexpected("a path or a value")
        self._at += 1
        if kind == "quoted" or kind == "name" and text not in _CONSTANTS:
            path = text.strip("`")
            self.paths.append(path)
            return _Operand(lambda lookup: lookup(path), path)
        constant: Any = _CONSTANTS.get(text)
        if kind == "text":
            constant = _ESCAPE.sub(r"\1", text[1:-1])
        elif kind == "number":
            constant = int(text) if re.fullmatch("-?[0-9]+", text) else float(text)
        return _Operand(lambda lookup: constant, "")


def _compared(left: Callable[[Lookup], Any], sign: str, right: Callable[[Lookup], Any]) -> Condition:
    if sign == "==":
        return lambda lookup: _equal(left(lookup), right(lookup))
    if sign == "!=":
        return lambda lookup: not _equal(left(lookup), right(lookup))
    compare = _COMPARE[sign]

    def ordered(lookup: Lookup) -> bool:
        first, second = left(lookup), right(lookup)
        return _kind(first) == _kind(second) in ("number", "text") and compare(first, second)

    return ordered


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "null" if value is None else "other"


def _equal(first: Any, second: Any) -> bool:
    return _kind(first) == _kind(second) and bool(first == second)
