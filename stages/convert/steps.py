"""Points through `[[sources.steps]]`: each becomes a document, and what the steps make of it becomes messages. Pure.

Integers stay integers through steps, and floats stay floats; what `scale` and `parse` calculate is a float. `types`
apply after the steps.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec
import xxhash

from pipeline.config.schema import MappingConfig
from pipeline.config.source_names import constant_tags, measurement_of
from pipeline.config.source_schema import Format, SourceConfig
from pipeline.config.steps_schema import ParseStep, ScaleStep, listed
from pipeline.points import escape
from pipeline.points.fingerprints import Fingerprint
from pipeline.points.table import BadRow, Column, Row, Table
from pipeline.printable import excerpt
from stages.convert.payloads import MAX_SERIES, Dedupe, PageMessages
from stages.convert.types import FieldTypes, converted
from stages.mapping.cpu_limit import CpuLimit
from stages.mapping.notices import Notices
from stages.mapping.records.values import I64, U64, BadValue
from stages.mapping.reject import Reject
from stages.mapping.steps.paths import Document, Path
from stages.mapping.steps.runner import Steps
from stages.mapping.steps.values import Apply

#: The order of a point's keys in messages.
_KEYS: Final = ("measurement", "tags", "fields", "time")
_NO_LIMIT: Final = CpuLimit(float("inf"))


class _BadPoint(ValueError):
    """What the steps have made is not a point that the format can hold."""


class PointSteps(Steps):
    """The steps of a source."""

    def __init__(self, config: SourceConfig) -> None:
        """Raises BadStep."""
        super().__init__(MappingConfig(steps=config.steps), "", "", Notices(), ())
        self._steps = [compiled if compiled.one is None or not isinstance(step, ScaleStep | ParseStep) else
                       compiled._replace(one=_with_floats(compiled.one, step))
                       for compiled, step in zip(self._steps, config.steps, strict=True)]


def _with_floats(one: Apply, step: ScaleStep | ParseStep) -> Apply:
    """A step whose results are floats where they are numbers: an integer by chance would be another type."""
    if isinstance(step, ParseStep) and "number" not in listed(step.as_):
        return one
    paths = [Path(text) for text in ((step.to,) if step.to else listed(step.path))]

    def apply(document: Document, context: Any) -> Document | None:
        found = one(document, context)
        if found is not None:
            for path in paths:
                for place in path.places(found):
                    if type(place.value) is int:
                        place.holder[place.key] = Decimal(place.value)
        return found

    return apply


class StepsEncoder:
    """Encodes rows of one measurement with one set of columns, through steps. As `payloads.PointEncoder`."""

    def __init__(self, config: SourceConfig, kept: str, columns: tuple[Column, ...], steps: PointSteps,
                 types: FieldTypes) -> None:
        self._measurement = measurement_of(config, kept).name
        self._tags = [column.name for column in columns if column.kind == "tag"]
        self._fields = columns[len(self._tags):]
        self._constant_tags = constant_tags(config, kept)
        self._steps = steps
        self._types = types
        self._unsigned = frozenset(column.name for column in self._fields if column.type == "unsigned")
        self._max_bytes = config.output.max_message_bytes
        self._long = config.output.shape == "long"
        write: dict[Format, Callable[[Document], bytes]] = {
            "json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode, "line_protocol": self._line}
        self._write = write[config.output.format]
        #: Values of tags -> the tags, and a hash of the series.
        self._series: dict[Row, tuple[dict[str, str], int]] = {}

    def encode(self, table: Table, dedupe: Dedupe | None, out: PageMessages) -> None:
        """Adds the messages of a table's rows to `out`."""
        out.bad += table.bad
        tags_end = len(self._tags) + 1
        for row in table.rows:
            tags, series = self._series_of(row[1:tags_end])
            fields = {column.name: Decimal(repr(value)) if isinstance(value, float) else value
                      for column, value in zip(self._fields, row[tags_end:], strict=True) if value is not None}
            if not fields:
                continue
            document = {"measurement": self._measurement, "tags": dict(tags), "fields": fields, "time": row[0]}
            try:
                payloads = list(self._payloads(document))
            except Exception as error:  # a bad row must not fail its page
                reason = "step_failed" if isinstance(error, Reject) else "bad_value"
                out.bad.append(BadRow(reason, getattr(error, "detail", "") or str(error), excerpt(str(row))))
                continue
            if payloads:
                out.points += 1
                self._add(out, payloads, series, row[0], dedupe)  # type: ignore[arg-type]

    def _series_of(self, values: Row) -> tuple[dict[str, str], int]:
        found = self._series.get(values)
        if found is None:
            if len(self._series) >= MAX_SERIES:
                self._series.clear()
            tags = {**self._constant_tags, **{name: str(value) for name, value in
                                              zip(self._tags, values, strict=True) if value}}
            tags = dict(sorted(tags.items()))
            hashed = xxhash.xxh32_intdigest(msgspec.json.encode([self._measurement, tags]))
            found = self._series[values] = tags, hashed
        return found

    def _payloads(self, document: Document) -> Iterator[bytes]:
        """The messages of a point. Raises Reject, BadValue and others for one that cannot become a message."""
        for found in self._steps.documents(document, _NO_LIMIT):
            if isinstance(found, Reject):
                raise found
            fields = found.get("fields")
            if not isinstance(fields, dict):
                yield self._write(_plain(found))
                continue
            found = {key: found[key] for key in (*_KEYS, *found) if key in found}
            if isinstance(tags := found.get("tags"), dict):
                found["tags"] = {key: _text(key, value) for key, value in tags.items() if value not in (None, "")}
            typed = {name: self._typed(name, value) for name, value in fields.items() if value is not None}
            for part in [{name: value} for name, value in typed.items()] if self._long else [typed] if typed else []:
                yield self._write(_plain({**found, "fields": part}))

    def _typed(self, name: str, value: Any) -> Any:
        kind = self._types.of(name)
        if kind is None or isinstance(value, dict | list):
            return value
        try:
            return converted(value, kind)
        except BadValue as error:
            raise BadValue(f"{name}: {excerpt(str(value))} as {kind}: {error}") from None

    def _line(self, document: Document) -> bytes:
        """A line. Raises _BadPoint, and `escape.Unwritable`."""
        name, tags, fields, time = (document.get(key) for key in ("measurement", "tags", "fields", "time"))
        if not isinstance(name, str) or not isinstance(tags or {}, dict) or not isinstance(fields, dict) \
                or type(time) is not int:
            raise _BadPoint("after the steps it has no measurement, tags, fields and time as a line needs them")
        pairs = "".join([f",{escape.tag_key(key)}={escape.tag_value(value)}"
                         for key, value in sorted((tags or {}).items())])
        parts = ",".join([f"{escape.field_key(key)}={self._field(key, value)}" for key, value in fields.items()])
        return f"{escape.measurement(name)}{pairs} {parts} {time}".encode()

    def _field(self, name: str, value: Any) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int):
            is_unsigned = self._types.of(name) == "unsigned" or name in self._unsigned and value >= 0
            if value not in (U64 if is_unsigned else I64):
                raise _BadPoint(f"{name}: {value} is no 64-bit integer; if it is unsigned, give its type in `types`")
            return f"{value}{'u' if is_unsigned else 'i'}"
        if isinstance(value, float):
            return repr(value)
        return escape.string_field(_text(name, value))

    def _add(self, out: PageMessages, payloads: list[bytes], series: int, time: int, dedupe: Dedupe | None) -> None:
        """Adds the messages of a point, unless they are too large, or were sent before."""
        fresh = False
        for number, payload in enumerate(payloads):
            if len(payload) > self._max_bytes:
                out.bad.append(BadRow("too_large", f"{len(payload)} bytes are more than max_message_bytes",
                                      excerpt(payload)))
                continue
            if dedupe is not None and (time < dedupe.seen_until or time >= dedupe.remember_from):
                point = xxhash.xxh64_intdigest(f"{series}\0{time}\0{number}".encode())
                content = xxhash.xxh64_intdigest(payload)
                if time < dedupe.seen_until and dedupe.known.get(point) == content:
                    continue
                if time >= dedupe.remember_from:
                    out.fingerprints.append(Fingerprint(time, point, content))
            fresh = True
            out.payloads.append(payload)
            out.series.append(series)
        out.repeated += not fresh


def _plain(value: Any) -> Any:
    """A document with floats for decimals. Raises _BadPoint for what no format can hold."""
    if isinstance(value, Decimal):
        number = float(value)
        if number - number != 0:
            raise _BadPoint(f"{value} is out of a float's range")
        return number
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    return [_plain(element) for element in value] if isinstance(value, list) else value


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list) or value is None:
        raise _BadPoint(f"{name} is an object, an array or null")
    return str(value)
