"""Code for messages of one shape: the same keys in the same order, with values of the same kinds.

Producers write their messages by one template. From one message its shape is learned: a regular expression of the
text between the values, which proves the JSON valid and cuts the values out in one pass, and a Python function, made
from source, that puts them into lines. Values that need more than copying have no shape; they go by the rules.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from pipeline.points import escape
from pipeline.points.field_type import FieldType as Kind
from stages.mapping.budget import cost_of
from stages.mapping.compiled.uniform_batch import BatchTemplate, Segment, source_literal
from stages.mapping.records import timestamps
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.record import Record, is_json
from stages.mapping.records.series import FIELD_SUFFIX, Origin, SeriesKey, lead_of
from stages.mapping.records.type_guard import SlowPathNeeded
from stages.mapping.records.values import Converter
from stages.mapping.reject import Reject

#: Characters of a message between its values that a shape may have: its pattern is compiled, at microseconds each.
_MAX_BETWEEN: Final = 32_768

_PLAIN: Final = r'[^"\\\x00-\x1f]*+'
_STRING: Final = f'"{_PLAIN}"'
_NOT_EMPTY: Final = r'"[^"\\\x00-\x1f]++"'
#: A string that may have escapes, but for a NUL.
_ESCAPED: Final = f'"{_PLAIN}' + r'(?:\\(?:["\\/bfnrt]|u(?!0000)[0-9a-fA-F]{4})' + f'{_PLAIN})*+"'
_INTEGER: Final = r"-?(?:0|[1-9][0-9]{0,17}+)"
_NUMBER: Final = _INTEGER + r"(?:\.[0-9]{1,100}+)?+"
_DECIMAL: Final = _INTEGER + r"\.[0-9]{1,100}+"
_SIGNED: Final = r"(?:0|-?[1-9][0-9]{0,17}+)"
_UNSIGNED: Final = r"(?:0|[1-9][0-9]{0,17}+)"
_BOOLEAN: Final = r"(?:true|false)"
_ANY: Final = f"(?:{_STRING}|{_NUMBER}|{_BOOLEAN}|null)"
#: What takes a message of another shape, so that each message has a row.
_OTHER: Final = r"[^\n]*+"

#: A row of values cut out of a message, in the message's order; all empty where the message has another shape.
Row = tuple[str, ...]


class Column(NamedTuple):
    """One captured value of a shape."""

    path: str
    key: str
    #: The value is a string: captured without its quotes.
    quoted: bool


class Heads(dict[Any, str]):
    """Measurement and tag set by the values they come from: made at first sight, then looked up.

    The values are those of the columns, and last the tuple of headers where the mapping has header tags.
    """

    def __init__(self, rules: RecordMapper, columns: Sequence[Column], kinds: dict[str, Kind], partition: int) -> None:
        super().__init__()
        self._rules = rules
        self._columns = columns
        self._kinds = kinds
        self._longest = max(kinds, key=lambda lead: len(lead.encode()))
        self._partition = partition
        self._share = rules.budget.share(self.clear)

    def __missing__(self, values: Any) -> str:
        """Makes a head by the rules. Raises Reject, and Diverted where a field must become another type."""
        with_headers = bool(self._rules.config.header_tags)
        texts = values if len(self._columns) + with_headers > 1 else (values,)
        record: Record = {
            column.path: (column.key, f'"{text}"' if column.quoted else text)
            for column, text in zip(self._columns, texts, strict=False)}
        origin = Origin(partition=self._partition, headers=texts[-1] if with_headers else ())
        measurement, tags, moved, _ = self._rules.heads.head(record, origin)
        self._rules.check_keys(measurement + tags, {self._longest: ""})
        guard = self._rules.guard
        if moved:
            raise SlowPathNeeded
        if guard is not None:
            known = guard.decided(measurement, self._kinds)
            if any(known[lead] != kind for lead, kind in self._kinds.items()):
                raise SlowPathNeeded
        head = measurement + tags
        if self._share.takes(cost_of(head, *map(str, texts))):
            self[values] = head
        return head


class Shape:
    """The pattern of one shape and the code for it. Made by `learn`."""

    def __init__(self, learner: "_Learner", pattern: str, groups: int) -> None:
        self.pattern = re.compile(pattern, re.MULTILINE)
        #: The row of a message that has another shape.
        self.no_row: Row = ("",) * groups
        #: Python source of the functions that make the lines.
        self.source = learner.source()
        self._rules = learner.rules
        self._columns = [column for column, _ in learner.heads]
        self._kinds = learner.kinds
        self._heads: dict[int, Heads] = {}
        names: dict[str, Any] = {"field_time": learner.rules.field_time, **learner.converters}
        exec(compile(self.source, "<shape>", "exec"), names)  # nosec B102: only escaped literals and our own names are in it
        #: (heads, rows, times or None, headers or None) -> (heads, times) of each message: equal ones are the same
        #: point.
        self._identities: Callable[..., tuple[list[str], Sequence[Any]]] = names["identities"]
        #: The quick way for a batch that has this shape throughout, if there is one.
        self.uniform = learner.uniform(names, self.heads)
        #: (rows, heads, times) -> each message's line, ending in a line break.
        self.lines: Callable[[Sequence[Row], Sequence[str], Sequence[Any]], list[str]] = names["lines"]

    def identities(self, rows: Sequence[Row], times: Sequence[int] | None, partition: int,
                   headers: Sequence[tuple[str, ...]] | None) -> tuple[list[str], Sequence[Any]]:
        """Head and time of each message. Raises Reject and Diverted where one of them has none."""
        return self._identities(self.heads(partition), rows, times, headers)

    def heads(self, partition: int) -> Heads:
        """Measurement and tag set of a partition's messages, by the values that they come from."""
        heads = self._heads.get(partition)
        if heads is None:
            heads = self._heads[partition] = Heads(self._rules, self._columns, self._kinds, partition)
        return heads

    def rows(self, joined: bytes, count: int) -> list[Row] | None:
        """A row for each of the payloads that are joined by line breaks; None where they are not UTF-8.

        The payloads themselves hold no line breaks.
        """
        try:
            rows: list[Row] = self.pattern.findall(joined.decode())
        except UnicodeDecodeError:
            return None
        return rows if len(rows) == count else None


class _NoShape(Exception):
    """The message holds a value that cannot just be copied."""


def learn(rules: RecordMapper, payload: bytes, partition: int = 0, headers: tuple[str, ...] = ()) -> Shape | None:
    """The shape of a message without line breaks, or None where it has none, or is not valid JSON.

    What the pattern has of the message stands for all that match it: it must be proven valid here.
    """
    if not is_json(payload):
        return None
    try:
        text = payload.decode()
        spans = rules.flattener.spans(text)
        if spans is None or len(text) - sum([end - start for _, _, start, end in spans]) > _MAX_BETWEEN:
            return None
        head = rules.heads.head({path: (key, text[start:end]) for path, key, start, end in spans},
                                Origin(partition=partition, headers=headers))
        return _Learner(rules, text, spans, head).shape()
    except (_NoShape, Reject, escape.Unwritable, UnicodeDecodeError):
        return None
    finally:
        rules.notices.drop()


def can_learn(rules: RecordMapper) -> bool:
    """Whether messages can have shapes under this mapping at all."""
    config = rules.config
    return not (config.explode or config.rules or config.bucket_template or "offset" in config.metadata_tags)


class _Learner:
    """Goes through one message's values and gathers the pattern and the code."""

    def __init__(self, rules: RecordMapper, text: str, spans: list[tuple[str, str, int, int]], head: SeriesKey) -> None:
        self.rules = rules
        self.text = text
        self.spans = spans
        self.head = head
        self.groups = 0
        #: Whether one of the groups is never empty, so that a row shows that the message has the shape.
        self.marked = False
        self.heads: list[tuple[Column, int]] = []
        #: Keys of the tags: with two of one key there is no shape, nor with two fields.
        self.tags: set[str] = set()
        #: `key=` -> source of the f-string's part with the value.
        self.fields: dict[str, str] = {}
        self.kinds: dict[str, Kind] = {}
        #: The same of tags that have become fields; they come last.
        self.moved: dict[str, str] = {}
        #: Names in the source -> what makes the value from a string with escapes.
        self.converters: dict[str, Converter] = {}
        self.time = ""
        self.tail = ""
        #: The same values for `BatchTemplate`, and the one of the value at hand.
        self.cuts: list[Segment] = []
        self.cut: Segment | None = None

    def shape(self) -> Shape:
        """Raises _NoShape where one value has none."""
        pattern, at = "", 0
        for path, key, start, end in self.spans:
            self.cut = None
            value = self._value(path, key, self.text[start:end])
            pattern += re.escape(self.text[at:start]) + value
            self.cuts.append((self.cut or Segment("", value))._replace(literal=self.text[at:start]))
            at = end
        if not self.fields or self.rules.time_path and not self.time:
            raise _NoShape
        leads = {lead_of(tag) for tag in self.tags} | self.rules.heads.outer_leads
        if not leads.isdisjoint(self.fields):
            raise _NoShape
        for lead in sorted(self.moved):
            if lead in self.fields:
                raise _NoShape
            self.fields[lead] = self.moved[lead]
            self.kinds[lead] = "string"
        self.tail = self.text[at:]
        tail = re.escape(self.tail)
        if not self.marked:
            tail = f"({tail})"
            self.groups += 1
        pattern += tail
        empty = max(0, 2 - self.groups)
        return Shape(self, f"^(?:{pattern}{'()' * empty}|{_OTHER})$", self.groups + empty)

    def uniform(self, names: dict[str, Any], heads: Callable[[int], Heads]) -> BatchTemplate | None:
        """The quick way, where no value needs a conversion and the fields are written in the message's order."""
        leads = [cut.lead for cut in self.cuts if cut.role == "field"]
        if self.converters or leads != list(self.fields) or any(cut.pattern == _ESCAPED for cut in self.cuts):
            return None
        return BatchTemplate(self.cuts, self.tail, self.time, names, heads, self.rules.budget)

    def _group(self, pattern: str) -> int:
        self.marked = self.marked or not pattern.startswith('"')
        self.groups += 1
        return self.groups - 1

    def _value(self, path: str, key: str, text: str) -> str:
        """The pattern of one value; notes what becomes of it."""
        rules = self.rules
        in_head, is_time, is_field = rules.heads.contains(path), path == rules.time_path, rules.is_field(path)
        if rules.is_excluded(path):
            in_head = is_time = is_field = False
        if in_head + is_time + is_field > 1:
            raise _NoShape
        if text == "null":
            return "null" if in_head or is_time or is_field else _ANY
        if in_head:
            moved = rules.heads.moved_key(path, key)
            return self._moved(moved, path, text) if moved else self._head(path, key, text)
        if is_time:
            return self._time(text)
        if is_field:
            return self._field(path, key, text)
        if not re.fullmatch(_ANY, text):
            raise _NoShape
        return _ANY

    def _head(self, path: str, key: str, text: str) -> str:
        quoted = text[0] == '"'
        pattern = _string(text) if quoted else _BOOLEAN if text[0] in "tf" else _NUMBER
        if not re.fullmatch(pattern, text):
            raise _NoShape
        tag = self.rules.heads.tag_key(path, key)
        if tag:
            if tag in self.tags or self.rules.heads.is_outer(tag):
                raise _NoShape
            self.tags.add(tag)
        self.heads.append((Column(path, key, quoted), self._group(pattern)))
        self.cut = Segment("", pattern, "head")
        return f'"({pattern[1:-1]})"' if quoted else f"({pattern})"

    def _moved(self, tag: str, path: str, text: str) -> str:
        lead = escape.field_key(tag + FIELD_SUFFIX) + "="
        pattern = _NOT_EMPTY if text[0] == '"' else _BOOLEAN if text[0] in "tf" else _NUMBER
        if not re.fullmatch(pattern, text) or lead in self.moved or path in self.rules.config.template_paths():
            raise _NoShape
        self.moved[lead] = f'"{{v{self._group(pattern)}}}"'
        return f'"({pattern[1:-1]})"' if text[0] == '"' else f"({pattern})"

    def _field(self, path: str, key: str, text: str) -> str:
        lead = self.rules.lead(path, key)
        pattern, suffix, kind = _field_form(self.rules, path, text, self._decided(lead, text))
        if not re.fullmatch(pattern, text):
            raise _NoShape
        group = self._group(pattern)
        if lead in self.fields:
            raise _NoShape
        self.kinds[lead] = kind
        self.fields[lead] = f"{{v{group}}}{suffix}"
        self.cut = Segment("", pattern, "field", group, lead, suffix)
        if pattern == _ESCAPED:
            self.converters[f"text{group}"] = _unescaped(self.rules.converter(path))
            self.fields[lead] = f"{{text{group}(v{group})}}"
        elif kind == "string":
            self.fields[lead] = f'"{{v{group}}}"'
        return f'"({pattern[1:-1]})"' if kind == "string" else f"({pattern})"

    def _decided(self, lead: str, text: str) -> Kind | None:
        """The type that an undeclared number has by the guard's decision, if it may not be what is written."""
        guard = self.rules.guard
        if guard is None or self.rules.config.integers == "float" or text[0] in '"tf':
            return None
        kind: Kind = "float" if "." in text else "integer"
        return guard.decided(self.head.measurement, {lead: kind})[lead]

    def _time(self, text: str) -> str:
        form, precision = self.rules.config.timestamp_format, self.rules.precision
        if not form.startswith("epoch_"):
            if self.rules.config.lacks_year() or text[0] != '"' or not re.fullmatch(_STRING, text):
                raise _NoShape
            group = self._group(_STRING)
            self.time = f"field_time('\"' + v{group} + '\"')"
            self.cut = Segment("", f'"({_STRING[1:-1]})"', "time", group)
            return self.cut.pattern
        source, target = timestamps.UNIT_NS[form.removeprefix("epoch_")], timestamps.UNIT_NS[precision]
        digits = len(str(timestamps.MAX_NS // source))
        drop = max(0, len(str(target // source)) - 1)
        pattern = f"([1-8][0-9]{{0,{digits - 1 - drop}}}+)" if not drop else (
            f"([1-8][0-9]{{0,{digits - 1 - drop}}})[0-9]{{{drop}}}")
        if not re.fullmatch(pattern, text):
            raise _NoShape
        group = self._group(pattern)
        self.cut = Segment("", pattern, "time", group)
        zeros = "0" * max(0, len(str(source // target)) - 1)
        self.time = f"v{group} + '{zeros}'" if zeros else f"v{group}"
        return pattern

    def source(self) -> str:
        """Python source of the shape's functions."""
        row = ", ".join(f"v{number}" for number in range(max(2, self.groups)))
        values = [f"v{group}" for _, group in self.heads]
        rows = f"for {row} in rows"
        if self.rules.config.header_tags:
            values.append("sent")
            rows = f"for ({row}), sent in zip(rows, headers)"
        head = f"heads[{', '.join(values) or '()'}]"
        body = ",".join(source_literal(lead) + value for lead, value in self.fields.items())
        identities = f"[{head} {rows}]" if values else f"[{head}] * len(rows)"
        times = f"[{self.time} for {row} in rows]" if self.time else "times"
        return (
            "def identities(heads, rows, times, headers):\n"
            f"    return {identities}, {times}\n"
            "def lines(rows, heads, times):\n"
            f"    return [f'{{head}} {body} {{time}}\\n' for head, ({row}), time in zip(heads, rows, times)]\n")


def _string(text: str) -> str:
    return _ESCAPED if "\\" in text else _STRING


def _unescaped(convert: Converter) -> Converter:
    """From what stands between a JSON string's quotes to a line protocol value. Raises Reject."""
    def value(inner: str) -> str:
        return convert(f'"{inner}"') if "\\" in inner else f'"{inner}"'

    return value


def _field_form(rules: RecordMapper, path: str, text: str, decided: Kind | None) -> tuple[str, str, Kind]:
    """Pattern of a field's value, what follows its capture in the line, and its type. Raises _NoShape."""
    declared = rules.config.types.get(path)
    first = text[0]
    if first == '"' and declared in (None, "string"):
        return _string(text), "", "string"
    if first in "tf" and declared in (None, "boolean"):
        return _BOOLEAN, "", "boolean"
    if first in '"tf':
        raise _NoShape
    if declared == "float" or declared is None and "float" in (rules.config.integers, decided):
        return _NUMBER, "", "float"
    if declared is None:
        return (_DECIMAL, "", "float") if "." in text else (_SIGNED, "i", "integer")
    if declared == "integer":
        return _SIGNED, "i", "integer"
    if declared == "unsigned":
        return _UNSIGNED, "u", "unsigned"
    raise _NoShape
