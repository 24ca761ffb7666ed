"""Code for messages of one shape: the same keys in the same order, with values of the same kinds.

Producers write their messages by one template. From one message its shape is learned: a regular expression of the
text between the values, which proves the JSON valid and cuts the values out in one pass, and a Python function, made
from source, that puts them into lines. Values that need more than copying have no shape; they go by the rules.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from stages.mapping import escape, timestamps
from stages.mapping.record import Record
from stages.mapping.reject import Reject
from stages.mapping.rules import Origin, Rules

#: Heads (measurement and tags) remembered by their values, at most; then all are forgotten.
_MAX_HEADS: Final = 100_000

_STRING: Final = r'"{}"'.format(r'[^"\\\x00-\x1f]*+')
_INTEGER: Final = r"-?(?:0|[1-9][0-9]{0,17}+)"
_NUMBER: Final = _INTEGER + r"(?:\.[0-9]{1,100}+)?+"
_DECIMAL: Final = _INTEGER + r"\.[0-9]{1,100}+"
_SIGNED: Final = r"(?:0|-?[1-9][0-9]{0,17}+)"
_UNSIGNED: Final = r"(?:0|[1-9][0-9]{0,17}+)"
_BOOLEAN: Final = r"(?:true|false)"
_ANY: Final = f"(?:{_STRING}|{_NUMBER}|{_BOOLEAN}|null)"

#: A row of values cut out of a message, in the message's order.
Row = tuple[str, ...]


class Column(NamedTuple):
    """One captured value of a shape."""

    path: str
    key: str
    #: The value is a string: captured without its quotes.
    quoted: bool


class Heads(dict[Any, str]):
    """Measurement and tag set by the values they come from: made at first sight, then looked up."""

    def __init__(self, rules: Rules, columns: Sequence[Column]) -> None:
        super().__init__()
        self._rules = rules
        self._columns = columns

    def __missing__(self, values: Any) -> str:
        """Makes a head by the rules. Raises Reject."""
        texts = (values,) if len(self._columns) == 1 else values
        record: Record = {
            column.path: (column.key, f'"{text}"' if column.quoted else text)
            for column, text in zip(self._columns, texts, strict=True)}
        head = self._rules.head(record, Origin())
        if len(self) >= _MAX_HEADS:
            self.clear()
        self[values] = head
        return head


class Shape:
    """The pattern of one shape and the code for it. Made by `learn`."""

    def __init__(self, pattern: str, source: str, heads: Heads | str, keys: frozenset[str],
                 field_time: Callable[[str], int]) -> None:
        self.pattern = re.compile(pattern, re.MULTILINE)
        #: Python source of the functions that make the lines.
        self.source = source
        self.heads = heads
        #: The fields that each line has, as escaped `key=`.
        self.keys = keys
        names: dict[str, Any] = {"heads": heads, "field_time": field_time}
        exec(compile(source, "<shape>", "exec"), names)
        #: (rows, times or None) -> (heads, times) of each message: equal ones are the same point.
        self.identities: Callable[[Sequence[Row], Sequence[int] | None], tuple[list[str], list[Any]]] = \
            names["identities"]
        #: (rows, heads, times) -> each message's line, ending in a line break.
        self.lines: Callable[[Sequence[Row], list[str], list[Any]], list[str]] = names["lines"]
        #: Row -> its field set.
        self.body: Callable[[Row], str] = names["body"]


class _NoShape(Exception):
    """The message holds a value that cannot just be copied."""


def learn(rules: Rules, payload: bytes) -> Shape | None:
    """The shape of a message that is valid JSON, or None where there is none."""
    if not can_learn(rules):
        return None
    try:
        text = payload.decode()
        spans = rules.flattener.spans(text)
        return _Learner(rules, text, spans).shape() if spans is not None else None
    except (_NoShape, Reject, escape.Unwritable, UnicodeDecodeError):
        return None


def can_learn(rules: Rules) -> bool:
    """Whether messages can have shapes under this mapping at all."""
    config = rules.config
    return not config.explode and not {"offset", "partition"} & set(config.metadata_tags)


class _Learner:
    """Goes through one message's values and gathers the pattern and the code."""

    def __init__(self, rules: Rules, text: str, spans: list[tuple[str, str, int, int]]) -> None:
        self.rules = rules
        self.text = text
        self.spans = spans
        self.groups = 0
        self.heads: list[tuple[Column, int]] = []
        #: `key=` -> source of the f-string's part with the value.
        self.fields: dict[str, str] = {}
        self.time = ""

    def shape(self) -> Shape:
        """Raises _NoShape where one value has none."""
        pattern, at = "^", 0
        for path, key, start, end in self.spans:
            pattern += re.escape(self.text[at:start]) + self._value(path, key, self.text[start:end])
            at = end
        pattern += re.escape(self.text[at:]) + "$"
        pattern += "()" * max(0, 2 - self.groups)
        if not self.fields or self.rules.time_path and not self.time:
            raise _NoShape
        columns = [column for column, _ in self.heads]
        heads: Heads | str
        heads = Heads(self.rules, columns) if columns else self.rules.head({}, Origin())
        return Shape(pattern, self._source(), heads, frozenset(self.fields), self.rules.field_time)

    def _group(self, pattern: str) -> int:
        self.groups += 1
        return self.groups - 1

    def _value(self, path: str, key: str, text: str) -> str:
        """The pattern of one value; notes what becomes of it."""
        rules = self.rules
        in_head, is_time, is_field = rules.in_head(path), path == rules.time_path, rules.is_field(path)
        if in_head + is_time + is_field > 1:
            raise _NoShape
        if text == "null":
            return "null" if in_head or is_time or is_field else _ANY
        if in_head:
            return self._head(path, key, text)
        if is_time:
            return self._time(text)
        if is_field:
            return self._field(path, key, text)
        if not re.fullmatch(_ANY, text):
            raise _NoShape
        return _ANY

    def _head(self, path: str, key: str, text: str) -> str:
        quoted = text[0] == '"'
        pattern = _STRING if quoted else _BOOLEAN if text[0] in "tf" else _NUMBER
        if not re.fullmatch(pattern, text):
            raise _NoShape
        self.heads.append((Column(path, key, quoted), self._group(pattern)))
        return f'"({pattern[1:-1]})"' if quoted else f"({pattern})"

    def _field(self, path: str, key: str, text: str) -> str:
        lead, _ = self.rules.field(path, key)
        pattern, before, after = _field_form(self.rules, path, text)
        if not re.fullmatch(pattern, text):
            raise _NoShape
        group = self._group(pattern)
        self.fields[lead] = f"{before}{{v{group}}}{after}"
        return f'"({pattern[1:-1]})"' if before else f"({pattern})"

    def _time(self, text: str) -> str:
        form, precision = self.rules.config.timestamp_format, self.rules.precision
        if not form.startswith("epoch_"):
            if text[0] != '"' or not re.fullmatch(_STRING, text):
                raise _NoShape
            group = self._group(_STRING)
            self.time = f"field_time('\"' + v{group} + '\"')"
            return f'"({_STRING[1:-1]})"'
        source, target = timestamps.UNIT_NS[form.removeprefix("epoch_")], timestamps.UNIT_NS[precision]
        digits = len(str(timestamps.MAX_NS // source))
        drop = max(0, len(str(target // source)) - 1)
        pattern = f"([1-8][0-9]{{0,{digits - 1 - drop}}}+)" if not drop else (
            f"([1-8][0-9]{{0,{digits - 1 - drop}}})[0-9]{{{drop}}}")
        if not re.fullmatch(pattern, text):
            raise _NoShape
        group = self._group(pattern)
        zeros = "0" * max(0, len(str(source // target)) - 1)
        self.time = f"v{group} + '{zeros}'" if zeros else f"v{group}"
        return pattern

    def _source(self) -> str:
        """Python source of the shape's functions."""
        row = ", ".join(f"v{number}" for number in range(max(2, self.groups)))
        head = "heads" if not self.heads else f"heads[{', '.join(f'v{group}' for _, group in self.heads)}]"
        body = ",".join(_literal(lead) + value for lead, value in self.fields.items())
        times = f"[{self.time} for {row} in rows]" if self.time else "times"
        return (
            "def identities(rows, times):\n"
            f"    return [{head} for {row} in rows], {times}\n"
            "def lines(rows, heads, times):\n"
            f"    return [f'{{head}} {body} {{time}}\\n' for head, ({row}), time in zip(heads, rows, times)]\n"
            "def body(row):\n"
            f"    {row} = row\n"
            f"    return f'{body}'\n")


def _field_form(rules: Rules, path: str, text: str) -> tuple[str, str, str]:
    """Pattern of a field's value, and the line protocol around its capture. Raises _NoShape."""
    declared = rules.config.types.get(path)
    first = text[0]
    if first == '"' and declared in (None, "string"):
        return _STRING, '"', '"'
    if first in "tf" and declared in (None, "boolean"):
        return _BOOLEAN, "", ""
    if first in '"tf':
        raise _NoShape
    if declared == "float" or declared is None and rules.config.integers == "float":
        return _NUMBER, "", ""
    if declared is None:
        return (_DECIMAL, "", "") if "." in text else (_SIGNED, "", "i")
    if declared in ("integer", "unsigned"):
        return (_SIGNED, "", "i") if declared == "integer" else (_UNSIGNED, "", "u")
    raise _NoShape


def _literal(text: str) -> str:
    """A text as part of the source of an f-string in single quotes."""
    escaped = text.encode("unicode_escape").decode().replace("'", "\\'")
    return escaped.replace("{", "{{").replace("}", "}}")
