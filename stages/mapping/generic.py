"""The plain encoder: one message at a time, one key at a time.

It defines what a message's line is: the compiled encoder (`stages.mapping.compile`) takes its values' rules
(`Rules`) from here and must write the same bytes. `naive_encode` is the baseline the benchmark compares with.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pipeline.schema import MappingConfig, Precision
from stages.mapping import escape, timestamps

_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)
_I64 = range(-(2**63), 2**63)
_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Reject(Exception):
    """One message cannot be written: its reason class and the detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Encoded(msgspec.Struct, frozen=True):
    """A batch as line protocol: the lines, how many, and (index, reason class, detail) of each rejected message."""

    body: bytes
    points: int
    rejects: list[tuple[int, str, str]]


def decode_object(payload: bytes) -> dict[str, str]:
    """A payload's keys with their values' JSON text, duplicates resolved to the last; raises `Reject`."""
    try:
        payload.decode()
        return {key: bytes(raw).decode() for key, raw in _DECODER.decode(payload).items()}
    except msgspec.ValidationError as error:
        raise Reject("not_object" if _is_json(payload) else "not_json", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Reject("not_json", str(error)) from None


def _is_json(payload: bytes) -> bool:
    """Whether the payload is one JSON text of any kind."""
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _loads(text: str) -> Any:
    """The value of a JSON text that was already found to be valid."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Reject("bad_field", str(error)) from None


def _canonical(text: str) -> str:
    """Compact JSON of a nested value's text: no white space, numbers as they were written."""
    out = [part if part[0] == '"' else "".join(part.split()) for part in re.findall(r'"(?:[^"\\]|\\.)*"|[^"]+', text)]
    return "".join(out)


class Rules:
    """The mapping's rules for single values, each from the JSON text of the value (or "" where it is missing)."""

    def __init__(self, config: MappingConfig, precision: Precision, topic: str) -> None:
        self.config = config
        self.precision: Precision = precision
        self.as_written = config.integers == "as_written"
        self.tags = [(key, f",{escape.tag_key(key)}=") for key in sorted(set(config.tag_fields))]
        self.measurement_key = config.measurement_field if config.measurement_from == "field" else None
        self.time_key = config.timestamp_field if config.timestamp_from == "field" else None
        fixed = config.measurement_name if config.measurement_from == "static" else topic
        self.fixed = "" if self.measurement_key is not None else escape.measurement(fixed)
        self.used = {*config.tag_fields, self.measurement_key, self.time_key}
        self.explicit = tuple(dict.fromkeys(config.field_names)) if config.field_strategy == "explicit" else None
        self.unit = config.timestamp_format.removeprefix("epoch_")
        for name in self.explicit or ():
            escape.field_key(name)

    def field_keys(self, present: Iterable[str]) -> list[tuple[str, str]]:
        """The fields' JSON keys with `key=` escaped: the configured order, or, of "remaining", sorted by key."""
        if self.explicit is not None:
            return [(key, escape.field_key(key) + "=") for key in self.explicit]
        out = []
        for key in sorted(set(present) - self.used):
            if not key:
                raise Reject("bad_field", "empty key")
            try:
                out.append((key, escape.field_key(key) + "="))
            except escape.Unwritable as error:
                raise Reject("unwritable", str(error)) from None
        return out

    def measurement(self, text: str) -> str:
        """Line protocol element `measurement`, of the value of the measurement's key: a string that is not empty."""
        value = _loads(text) if text[:1] == '"' else None
        if not value:
            raise Reject("bad_measurement", f"not a string, or empty: {text[:40] or 'missing'}")
        return escape.measurement(value)

    def tag(self, text: str) -> str:
        """Line protocol element `tag value`; "" where the tag is left out (missing, null, empty)."""
        if text in ("", "null", '""'):
            return ""
        if text[0] == '"':
            return escape.tag_value(_loads(text))
        if text[0] in "[{":
            raise Reject("bad_tag", "an object or array cannot be a tag")
        return text

    def prefix(self, measurement: str, tags: Sequence[str]) -> str:
        """Line protocol elements `measurement` and `tag set`, of JSON texts; the tags in the order of their keys."""
        try:
            out = self.fixed or self.measurement(measurement)
            for (_, lead), text in zip(self.tags, tags, strict=True):
                value = self.tag(text)
                if value:
                    out += lead + value
            return out
        except escape.Unwritable as error:
            raise Reject("unwritable", str(error)) from None

    def field(self, text: str) -> str:
        """Line protocol element `field value`; "" where the field is left out (missing, null)."""
        if not text or text == "null":
            return ""
        first = text[0]
        try:
            if first == '"':
                return text if "\\" not in text else escape.string_field(_loads(text))
            if first in "[{":
                return escape.string_field(_canonical(text))
        except escape.Unwritable as error:
            raise Reject("unwritable", str(error)) from None
        if first in "tf":
            return text
        if self.as_written and _INTEGER.fullmatch(text):
            if len(text) > 20 or int(text) not in _I64:
                raise Reject("bad_field", f"integer out of range: {text[:40]}")
            return text + "i"
        if abs(float(text)) == float("inf"):
            raise Reject("bad_field", f"number out of range: {text[:40]}")
        return text

    def time(self, text: str) -> int:
        """Line protocol element `timestamp`, of the value of the time's key, in the precision written."""
        if not text or text == "null":
            raise Reject("missing_timestamp", "no value")
        try:
            if self.unit != "rfc3339":
                ns = timestamps.parse_epoch(text, self.unit)
            elif text[0] == '"':
                ns = timestamps.parse_rfc3339(_loads(text))
            else:
                raise Reject("bad_timestamp", f"not a string: {text[:40]}")
        except timestamps.BadTimestamp as error:
            raise Reject("bad_timestamp", str(error)) from None
        return timestamps.to_precision(ns, self.precision)

    def message_time(self, micros: int) -> int:
        """Line protocol element `timestamp`, of the message's own time in Iggy (microseconds)."""
        try:
            ns = timestamps.check_range(micros * 1_000)
        except timestamps.BadTimestamp as error:
            raise Reject("bad_timestamp", str(error)) from None
        return timestamps.to_precision(ns, self.precision)


def encode_one(rules: Rules, payload: bytes, micros: int | None) -> str:
    """One message's line without its newline; raises `Reject`."""
    values = decode_object(payload)
    keys = rules.field_keys(values)
    line = rules.prefix(values.get(rules.measurement_key or "", ""), [values.get(key, "") for key, _ in rules.tags])
    fields = [lead + text for key, lead in keys if (text := rules.field(values.get(key, "")))]
    if not fields:
        raise Reject("no_fields", "no field has a value")
    if rules.time_key is not None:
        time = rules.time(values.get(rules.time_key, ""))
    elif micros is None:
        raise Reject("missing_timestamp", "the message came without its time")
    else:
        time = rules.message_time(micros)
    return f"{line} {','.join(fields)} {time}"


def encode(rules: Rules, payloads: Sequence[bytes], micros: Sequence[int] | None) -> Encoded:
    """A batch, message by message: the reference for the compiled encoder."""
    lines: list[str] = []
    rejects: list[tuple[int, str, str]] = []
    for index, payload in enumerate(payloads):
        try:
            lines.append(encode_one(rules, payload, micros[index] if micros is not None else None))
        except Reject as reject:
            rejects.append((index, reject.reason, reject.detail))
    body = "".join([line + "\n" for line in lines])
    return Encoded(body.encode(), len(lines), rejects)


def naive_encode(
    payloads: Sequence[bytes], config: MappingConfig, precision: Precision, topic: str, micros: Sequence[int] | None
) -> bytes:
    """What one writes first, as the benchmark's baseline: decode to a dict, loop over its keys, build the line.

    It reads epoch times only, and bad messages raise.
    """
    skip = {*config.tag_fields, config.timestamp_field, config.measurement_field}
    scale = timestamps.UNIT_NS.get(config.timestamp_format.removeprefix("epoch_"), 1)
    lines = []
    for index, payload in enumerate(payloads):
        message: dict[str, Any] = msgspec.json.decode(payload)
        name = config.measurement_name if config.measurement_from == "static" else topic
        if config.measurement_from == "field":
            name = message[config.measurement_field]
        head = escape.measurement(name)
        for key in sorted(config.tag_fields):
            if message.get(key) not in (None, ""):
                head += f",{escape.tag_key(key)}={escape.tag_value(str(message[key]))}"
        names = config.field_names if config.field_strategy == "explicit" else [k for k in message if k not in skip]
        fields = []
        for key in names:
            value = message.get(key)
            if isinstance(value, str):
                fields.append(f"{escape.field_key(key)}={escape.string_field(value)}")
            elif isinstance(value, bool):
                fields.append(f"{escape.field_key(key)}={'true' if value else 'false'}")
            elif value is not None:
                fields.append(f"{escape.field_key(key)}={value!r}")
        ns = message[config.timestamp_field] * scale if config.timestamp_from == "field" else (micros or [])[index] * 1000
        lines.append(f"{head} {','.join(fields)} {timestamps.to_precision(int(ns), precision)}\n")
    return "".join(lines).encode()
