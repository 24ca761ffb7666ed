"""Learns the template by which a producer writes: the same keys in the same order, with values of the same kinds.

From one message comes a `BatchTemplate`, which cuts a whole batch of such messages at once. Values that need more than
copying have none; their messages go the general way.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from pipeline.config.mapping_schema import EPOCH_FORMATS, DeclaredType
from pipeline.points import escape
from pipeline.points.field_type import FieldType
from stages.mapping.budget import cost_of
from stages.mapping.compiled import tables
from stages.mapping.compiled.escapes import marked, without_marks
from stages.mapping.compiled.guarded import check_types
from stages.mapping.compiled.moments import TimeColumn
from stages.mapping.compiled.routed import RoutedTemplate, SharedSeries, is_routed
from stages.mapping.compiled.uniform_batch import BatchTemplate, HeadSources, Segment, SharedHeads
from stages.mapping.records import timestamps
from stages.mapping.records.conditions import paths_of
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.record import Record, is_json
from stages.mapping.records.series import SHORT_CHARS, Origin, lead_of
from stages.mapping.records.type_guard import SlowPathNeeded
from stages.mapping.reject import Reject

#: Characters of a message between its values that a shape may have: its pattern is compiled, at microseconds each.
_MAX_BETWEEN: Final = 32_768

_PLAIN: Final = r'[^"\\\x00-\x1f]*+'
_STRING: Final = f'"{_PLAIN}"'
_INTEGER: Final = r"-?(?:0|[1-9][0-9]{0,17}+)"
_NUMBER: Final = _INTEGER + r"(?:\.[0-9]{1,100}+)?+"
_DECIMAL: Final = _INTEGER + r"\.[0-9]{1,100}+"
#: What an integer as written becomes as a float, -0 excepted.
_NO_MINUS_ZERO: Final = rf"(?:0|-?[1-9][0-9]{{0,17}}+|{_DECIMAL})"
_SIGNED: Final = r"(?:0|-?[1-9][0-9]{0,17}+)"
_UNSIGNED: Final = r"(?:0|[1-9][0-9]{0,17}+)"
_BOOLEAN: Final = r"(?:true|false)"
#: Numbers and booleans in strings, in their simplest form, by the type that is declared: they are written as they are.
_INSIDE: Final[dict[DeclaredType, str]] = {
    "float": r"-?(?:0|[1-9][0-9]{0,100}+)(?:\.[0-9]{1,100}+)?+", "integer": r"(?:-?[1-9][0-9]{0,17}+|0)",
    "unsigned": "(?:[1-9][0-9]{0,17}+|0)", "boolean": "(?:false|true)"}
_ANY: Final = f'(?:"[^"]*+"|{_NUMBER}|{_BOOLEAN}|null)'


class Column(NamedTuple):
    """One captured value of a shape."""

    path: str
    key: str
    #: The value is a string: captured without its quotes.
    quoted: bool


class Heads(dict[Any, str]):
    """Measurement and tag set by the values of the columns that they come from: made at first sight, then looked up."""

    def __init__(self, rules: RecordMapper, columns: Sequence[Column], partition: int,
                 kinds: dict[str, FieldType] | None) -> None:
        """`kinds` are the types of the fields where the type guard is to be asked for each measurement."""
        super().__init__()
        self._rules = rules
        self._columns = columns
        self._kinds = kinds
        self._partition = partition
        self._share = rules.budget.share(self.clear)
        #: Whether the type guard may be asked for what it does not know.
        self.may_ask = True

    def __missing__(self, values: Any) -> str:
        """Makes a head by the rules. Raises Reject, and SlowPathNeeded where a field must become another type."""
        texts = values if len(self._columns) > 1 else (values,)
        record: Record = {
            column.path: (column.key, f'"{text}"' if column.quoted else text)
            for column, text in zip(self._columns, texts, strict=False)}
        measurement, tags, moved, _ = self._rules.heads.head(record, Origin(partition=self._partition))
        head = measurement + tags
        if moved or len(head) > SHORT_CHARS:
            raise SlowPathNeeded
        if self._kinds is not None and self._rules.guard is not None:
            check_types(self._rules.guard, measurement, self._kinds, self.may_ask)
        if self._share.takes(cost_of(head, *map(str, texts))):
            self[values] = head
        return head


class _NoTemplate(Exception):
    """The message holds a value that cannot just be copied."""


def learn(rules: RecordMapper, payload: bytes, partition: int = 0, shared: SharedHeads | None = None,
          series: SharedSeries | None = None) -> BatchTemplate | RoutedTemplate | None:
    """The template of a message, or None where it has none, or is not valid JSON. Templates of one topic may share
    their heads, and series.

    What the template has of the message stands for all that match it: it must be proven valid here.
    """
    if not is_json(payload):
        return None
    try:
        text = payload.decode()
        spans = rules.flattener.spans(text)
        if spans is None or len(text) - sum([end - start for _, _, start, end in spans]) > _MAX_BETWEEN:
            return None
        record = {path: (key, text[start:end]) for path, key, start, end in spans if not rules.is_excluded(path)}
        if is_routed(rules):  # a message that is dropped has no series
            return _Learner(rules, text, spans, "").routed({} if series is None else series)
        measurement = rules.heads.head(record, Origin(partition=partition)).measurement
        return _Learner(rules, text, spans, measurement).template(SharedHeads() if shared is None else shared)
    except (_NoTemplate, Reject, escape.Unwritable, UnicodeDecodeError, SlowPathNeeded, msgspec.DecodeError):
        return None
    finally:
        rules.notices.drop()


class _Learner:
    """Goes through one message's values and gathers what is cut out of such messages."""

    def __init__(self, rules: RecordMapper, text: str, spans: list[tuple[str, str, int, int]],
                 measurement: str) -> None:
        self.rules = rules
        self.text = text
        self.spans = spans
        self.measurement = measurement
        self.groups = 0
        self.heads: list[Column] = []
        self.is_routed = is_routed(rules)
        self.operands = {path for rule in rules.config.rules for path in paths_of(rule.when)}
        self.bucket_paths = set(rules.config.bucket_paths())
        #: Values that rules, bucket or series ask for, where they are `is_routed`.
        self.alone: list[tables.Column] = []
        #: Keys of the tags: with two of one key there is no template, nor with two fields.
        self.tags: set[str] = set()
        #: `key=` -> type of the fields.
        self.kinds: dict[str, FieldType] = {}
        self.time = ""
        self.cuts: list[Segment] = []

    def routed(self, series: SharedSeries) -> RoutedTemplate:
        """The template where measurement or bucket depend on more. Raises _NoTemplate."""
        if any([path.startswith(f"{operand}.") for path, *_ in self.spans for operand in self.operands]):
            raise _NoTemplate  # a condition asks for an object
        template = self.template(SharedHeads())
        return RoutedTemplate(self.rules, template, self.alone, self.kinds, series)

    def template(self, shared: SharedHeads) -> BatchTemplate:
        """Raises _NoTemplate where one value has none."""
        at = 0
        for path, key, start, end in self.spans:
            cut = self._value(path, key, self.text[start:end])
            if cut.is_inside:
                start, end = start + 1, end - 1
            self.cuts.append(cut._replace(literal=marked(self.text[at:start])))
            at = end
        if not self.kinds or self.rules.time_path and not self.time:
            raise _NoTemplate
        leads = {lead_of(tag) for tag in self.tags} | self.rules.heads.outer_leads
        if not leads.isdisjoint(self.kinds):
            raise _NoTemplate
        rules, columns, kinds, guard = self.rules, self.heads, self.kinds, self.rules.guard
        if guard is None or rules.heads.fixed:
            def check(may_ask: bool) -> None:
                if guard is not None:
                    check_types(guard, rules.heads.fixed, kinds, may_ask)

            sources = HeadSources(lambda partition: Heads(rules, columns, partition, None), shared, tuple(columns),
                                  check)
        else:
            sources = HeadSources(lambda partition: Heads(rules, columns, partition, kinds), SharedHeads(), ())
        return BatchTemplate(self.cuts, marked(self.text[at:]), self.time, TimeColumn(rules).of_strings, sources,
                             rules.budget)

    def _group(self) -> int:
        self.groups += 1
        return self.groups - 1

    def _value(self, path: str, key: str, text: str) -> Segment:
        """What becomes of one value, and of one that is asked for by itself."""
        cut = self._used(path, key, text)
        is_operand = path in self.operands
        in_head = self.is_routed and (cut.role == "head" or path in self.bucket_paths)
        if not (is_operand or in_head):
            return cut
        if cut.is_inside or cut.role == "time" or self.rules.is_excluded(path):
            raise _NoTemplate
        self.alone.append(tables.Column(path, "", key, 0, "", in_head, False, is_operand, False))
        return cut._replace(role=cut.role or "asked", path=path)

    def _used(self, path: str, key: str, text: str) -> Segment:
        """What becomes of one value."""
        rules, text = self.rules, marked(text)
        in_head, is_time, is_field = rules.heads.contains(path), path == rules.time_path, rules.is_field(path)
        if rules.is_excluded(path):
            in_head = is_time = is_field = False
        if in_head + is_time + is_field > 1:
            raise _NoTemplate
        if text == "null":
            return Segment("", "null" if in_head or is_time or is_field else _ANY)
        if in_head:
            return self._in_head(path, key, text)
        if is_time:
            return self._time(text)
        if is_field:
            return self._field(path, key, text)
        if not re.fullmatch(_ANY, text):
            raise _NoTemplate
        return Segment("", _ANY)

    def _in_head(self, path: str, key: str, text: str) -> Segment:
        quoted = text[0] == '"'
        pattern = _STRING if quoted else _BOOLEAN if text[0] in "tf" else _NUMBER
        if not re.fullmatch(pattern, text) or self.rules.heads.moved_key(path, key):
            raise _NoTemplate
        tag = self.rules.heads.tag_key(path, key)
        if tag:
            if tag in self.tags or self.rules.heads.is_outer(tag):
                raise _NoTemplate
            self.tags.add(tag)
        self.heads.append(Column(path, key, quoted))
        return Segment("", pattern, "head")

    def _field(self, path: str, key: str, text: str) -> Segment:
        lead = self.rules.lead(path, key)
        pattern, suffix, kind = _field_form(self.rules, path, text, self._decided(path, lead, text))
        is_inside = pattern in _INSIDE.values()
        if lead in self.kinds or len(lead) > SHORT_CHARS or (
                not re.fullmatch(pattern, text[1:-1] if is_inside else without_marks(text))):
            raise _NoTemplate
        self.kinds[lead] = kind
        return Segment("", pattern, "field", self._group(), lead, suffix, is_inside)

    def _decided(self, path: str, lead: str, text: str) -> FieldType | None:
        """The type that an undeclared number has by the guard's decision, if it may not be what is written."""
        guard, config = self.rules.guard, self.rules.config
        if guard is None or config.integers == "float" or text[0] in '"tf' or (
                self.rules.types.of(path) is not None):
            return None
        known = None if self.is_routed else guard.known(self.measurement).get(lead)
        if known is None:
            raise _NoTemplate
        return known

    def _time(self, text: str) -> Segment:
        form, precision = self.rules.times.only_format, self.rules.precision
        if not form or self.rules.times.not_before is not None:
            raise _NoTemplate
        if form not in EPOCH_FORMATS:
            if text[0] != '"' or not re.fullmatch(_STRING, text):
                raise _NoTemplate
            self.time = "strings"
            return Segment("", f'"({_PLAIN})"', "time", self._group())
        source, target = timestamps.UNIT_NS[form.removeprefix("epoch_")], timestamps.UNIT_NS[precision]
        digits = len(str(timestamps.MAX_NS // source))
        drop = max(0, len(str(target // source)) - 1)
        pattern = f"([1-8][0-9]{{0,{digits - 1 - drop}}}+)" if not drop else (
            f"([1-8][0-9]{{0,{digits - 1 - drop}}})[0-9]{{{drop}}}")
        if not re.fullmatch(pattern, text):
            raise _NoTemplate
        group = self._group()
        zeros = "0" * max(0, len(str(source // target)) - 1)
        self.time = f"v{group} + '{zeros}'" if zeros else f"v{group}"
        return Segment("", pattern, "time", group)


def _field_form(rules: RecordMapper, path: str, text: str, decided: FieldType | None) -> tuple[str, str, FieldType]:
    """Pattern of a field's value, what follows its capture in the line, and its type. Raises _NoTemplate."""
    declared = rules.types.of(path)
    first = text[0]
    if declared == "number":
        raise _NoTemplate
    if first == '"' and declared in (None, "string"):
        return _STRING, "", "string"
    if first in "tf" and declared in (None, "boolean"):
        return _BOOLEAN, "", "boolean"
    if first == '"' and declared is not None and declared != "json" and declared in _INSIDE:
        return _INSIDE[declared], declared[0] if declared in ("integer", "unsigned") else "", declared
    if first in '"tf':
        raise _NoTemplate
    if declared == "float" or declared is None and rules.config.integers == "float":
        return _NUMBER, "", "float"
    if declared is None and decided == "float":
        return _NO_MINUS_ZERO, "", "float"
    if declared is None:
        return (_DECIMAL, "", "float") if "." in text else (_SIGNED, "i", "integer")
    if declared == "integer":
        return _SIGNED, "i", "integer"
    if declared == "unsigned":
        return _UNSIGNED, "u", "unsigned"
    raise _NoTemplate
