"""Conditions of `[[mapping.rules]]`: a small language, parsed at start and compiled to closures. Nothing is evaluated.

    condition  = all {"or" all}
    all        = one {"and" one}
    one        = "not" one | "(" condition ")" | "exists" "(" path ")" | comparison
    comparison = operand [("==" | "!=" | "<" | "<=" | ">" | ">=") operand | ["not"] "in" "[" literal {"," literal} "]"
                 | ["not"] ("matches" | "like") text]
    operand    = path | literal | ("topic" | "stream" | "partition" | "offset") "(" ")" | "header" "(" text ")"
    literal    = number | 'text' | "text" | "true" | "false" | "null"
    path       = name {"." name} | `any text between back quotes`

A value that is missing is null. A path alone holds where its value is true. Values of two kinds are never equal, and
neither is before the other; NaN is equal to nothing. `matches` finds a regular expression of RE2 anywhere in a text,
`like` compares the whole text with a pattern of `*` and `?`; nothing but a text fits either.
"""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from stages.mapping.records.text_patterns import BadPattern, is_like, is_match, regular_expression

#: Gives the value at a path; None where it is missing or null. `METADATA_PREFIX` and a name stand for what is beside
#: the message: "topic()", "header(NAME)".
Lookup = Callable[[str], Any]
Condition = Callable[[Lookup], bool]

#: Begins the path of what is beside the message. No path of a message has a NUL.
METADATA_PREFIX: Final = "\0"
_METADATA: Final = frozenset(("topic", "stream", "partition", "offset"))
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
    #: As a Python expression.
    source: str


class _Code(NamedTuple):
    """A condition as a closure, and as a Python expression."""

    holds: Condition
    source: str


def compile_condition(text: str) -> Condition:
    """The condition in `text` as a function. Raises BadCondition."""
    return _Parser(text).parse().holds


def source_of(text: str, values: Mapping[str, str]) -> str:
    """The condition as a Python expression that calls `SOURCE_NAMES`; it holds where the compiled condition does.

    `values` has the expression of the value at each path that is met; others are missing. Raises BadCondition.
    """
    return _Parser(text, values).parse().source


def paths_of(text: str) -> list[str]:
    """The paths that a condition asks for, without what is beside the message. Raises BadCondition."""
    return [path for path in all_paths_of(text) if not path.startswith(METADATA_PREFIX)]


def all_paths_of(text: str) -> list[str]:
    """The same, with that. Raises BadCondition."""
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
    def __init__(self, text: str, values: Mapping[str, str] | None = None) -> None:
        self._text = text
        self._values = values or {}
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self.paths: list[str] = []

    def parse(self) -> _Code:
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

    def _any(self) -> _Code:
        parts = [self._all()]
        while self._takes("or"):
            parts.append(self._all())
        if len(parts) == 1:
            return parts[0]
        holds = [part.holds for part in parts]
        return _Code(lambda lookup: any(one(lookup) for one in holds),
                     f"({' or '.join([part.source for part in parts])})")

    def _all(self) -> _Code:
        parts = [self._one()]
        while self._takes("and"):
            parts.append(self._one())
        if len(parts) == 1:
            return parts[0]
        holds = [part.holds for part in parts]
        return _Code(lambda lookup: all(one(lookup) for one in holds),
                     f"({' and '.join([part.source for part in parts])})")

    def _one(self) -> _Code:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadCondition(self._text, self._next.column, f"nested deeper than {MAX_DEPTH}")
        try:
            if self._takes("not"):
                return _negated(self._one())
            if self._takes("("):
                inner = self._any()
                self._demand(")")
                return inner
            if self._next.text == "exists" and self._tokens[self._at + 1].text == "(":
                return self._exists()
            return self._comparison()
        finally:
            self._depth -= 1

    def _exists(self) -> _Code:
        self._at += 2
        operand = self._operand()
        path = operand.path
        if not path:
            self._at -= 1
            raise self._unexpected("a path")
        self._demand(")")
        return _Code(lambda lookup: lookup(path) is not None, f"({operand.source} is not None)")

    def _comparison(self) -> _Code:
        left, sign = self._operand(), self._next.text
        if self._next.kind == "sign" and (sign in _COMPARE or sign in ("==", "!=")):
            self._at += 1
            return _compared(left, sign, self._operand())
        if self._takes("not"):
            return _negated(self._membership(left, "in"))
        if self._next.kind == "name" and self._next.text in ("in", "matches", "like"):
            return self._membership(left, "a comparison")
        if not left.path:
            raise self._unexpected("a comparison")
        return _Code(lambda lookup: left.value(lookup) is True, f"({left.source} is True)")

    def _membership(self, operand: _Operand, wanted: str) -> _Code:
        if self._takes("matches"):
            return self._fits(operand, "_is_match", is_match)
        if self._takes("like"):
            return self._fits(operand, "_is_like", is_like)
        if not self._takes("in"):
            raise self._unexpected("in, matches or like" if wanted == "in" else wanted)
        return self._in(operand)

    def _fits(self, operand: _Operand, name: str, fits: Callable[[Any, str], bool]) -> _Code:
        """The comparison with a regular expression or a pattern."""
        kind, text, column = self._next
        if kind != "text":
            raise self._unexpected("a text in quotes")
        self._at += 1
        # A backslash belongs to the expression, also before a quote.
        pattern = text[1:-1] if fits is is_match else _content(text)
        if fits is is_match:
            try:
                regular_expression(pattern)
            except BadPattern as error:
                raise BadCondition(self._text, column, str(error)) from None
        value = operand.value
        return _Code(lambda lookup: fits(value(lookup), pattern), f"{name}({operand.source}, {pattern!r})")

    def _in(self, operand: _Operand) -> _Code:
        self._demand("[")
        choices = [self._literal()]
        while self._takes(","):
            choices.append(self._literal())
        self._demand("]")
        value, constants = operand.value, [choice.value(lambda path: None) for choice in choices]
        each = [_compared(operand, "==", choice).source for choice in choices]
        return _Code(lambda lookup: any(_equal(value(lookup), constant) for constant in constants),
                     f"({' or '.join(each)})")

    def _literal(self) -> _Operand:
        operand = self._operand()
        if operand.path:
            self._at -= 1
            raise self._unexpected("a number, a text, true, false or null")
        return operand

    def _operand(self) -> _Operand:
        kind, text, _ = self._next
        if kind in ("end", "sign") or kind == "name" and text in _WORDS:
            raise self._unexpected("a path or a value")
        if kind == "name" and self._tokens[self._at + 1].text == "(" and (text in _METADATA or text == "header"):
            return self._metadata()
        self._at += 1
        if kind == "quoted" or kind == "name" and text not in _CONSTANTS:
            path = text.strip("`")
            self.paths.append(path)
            return _Operand(lambda lookup: lookup(path), path, self._values.get(path, "None"))
        constant: Any = _CONSTANTS.get(text)
        if kind == "text":
            constant = _content(text)
        elif kind == "number":
            constant = int(text) if re.fullmatch("-?[0-9]+", text) else float(text)
        finite = not isinstance(constant, float) or constant - constant == 0
        return _Operand(lambda lookup: constant, "", repr(constant) if finite else f"float('{constant}')")


    def _metadata(self) -> _Operand:
        """`topic()` and the like, and `header('NAME')`."""
        name = self._next.text
        self._at += 2
        if name == "header":
            kind, text, _ = self._next
            if kind not in ("text", "name") or "\\" in text:
                raise self._unexpected("the name of a header in quotes, without a backslash")
            self._at += 1
            name = f"header({text[1:-1] if kind == 'text' else text}"
        else:
            name += "("
        self._demand(")")
        path = f"{METADATA_PREFIX}{name})"
        self.paths.append(path)
        return _Operand(lambda lookup: lookup(path), path, self._values.get(path, "None"))


def header_of(path: str) -> str:
    """The name of the header that a path of `all_paths_of` stands for; "" if it stands for something else."""
    begin = f"{METADATA_PREFIX}header("
    return path[len(begin):-1] if path.startswith(begin) else ""


def _content(text: str) -> str:
    """What stands between quotes."""
    return _ESCAPE.sub(r"\1", text[1:-1])


def _negated(inner: _Code) -> _Code:
    return _Code(lambda lookup: not inner.holds(lookup), f"(not {inner.source})")


def _compared(left: _Operand, sign: str, right: _Operand) -> _Code:
    first, second = left.value, right.value
    if sign in ("==", "!="):
        equal = _Code(lambda lookup: _equal(first(lookup), second(lookup)), _equal_source(left, right))
        return equal if sign == "==" else _negated(equal)
    compare = _COMPARE[sign]

    def ordered(lookup: Lookup) -> bool:
        return _ordered(first(lookup), second(lookup), compare)

    # A constant's kind is known, but for that of NaN; what it is compared with must have the same.
    constant = right.value(lambda path: None) if not right.path and left.path else None
    kinds = {int: "_NUMBERS", float: "_NUMBERS", str: "_TEXTS"}.get(type(constant), "")
    if kinds:
        return _Code(ordered, f"(type({left.source}) in {kinds} and {left.source} {sign} {right.source})")
    return _Code(ordered, f"_ordered({left.source}, {right.source}, _COMPARE['{sign}'])")


def _equal_source(left: _Operand, right: _Operand) -> str:
    constant = right.value(lambda path: None) if not right.path and left.path else ...
    if constant is None or isinstance(constant, bool):
        return f"({left.source} is {right.source})"
    if isinstance(constant, str):
        return f"({left.source} == {right.source})"
    if isinstance(constant, int | float):
        return f"({left.source} == {right.source} and type({left.source}) is not bool)"
    return f"_equal({left.source}, {right.source})"


def _ordered(first: Any, second: Any, compare: Callable[[Any, Any], bool]) -> bool:
    return _kind(first) == _kind(second) in ("number", "text") and compare(first, second)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "null" if value is None else "other"


def _equal(first: Any, second: Any) -> bool:
    return _kind(first) == _kind(second) and bool(first == second)


#: What the source of a condition calls.
SOURCE_NAMES: Final[dict[str, Any]] = {
    "_equal": _equal, "_ordered": _ordered, "_COMPARE": _COMPARE, "_NUMBERS": frozenset((int, float)),
    "_TEXTS": frozenset((str,)), "_is_match": is_match, "_is_like": is_like}
