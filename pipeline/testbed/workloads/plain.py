"""The loop that one writes by hand: decode a message to a dict, flatten it, build its line.

No checks, no guarantees.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

Message = dict[str, Any]


class PlainLoop(Struct, frozen=True, kw_only=True):
    """What such a loop is written for. Keys are those of the flattened message, joined by underscores."""

    measurement: str = "sensors"
    decode: Callable[[bytes], Any] = msgspec.json.decode
    #: Key -> tag.
    tags: dict[str, str] = {}
    #: Only these fields; all where empty.
    fields: tuple[str, ...] = ()
    #: Key of the time, and what makes the number of the line from it.
    time_key: str = "ts"
    read_time: Callable[[Any], int] = int
    #: Key of an array whose elements are points.
    explode: str = ""
    #: Key -> what makes the value of a line from that of the message.
    convert: dict[str, Callable[[Any], str]] = {}
    #: Measurement and bucket of a message; None leaves it out.
    route: Callable[[Message], tuple[str, str] | None] | None = None
    #: Key of the measurement, and that of an object of tags, joined by an underscore to their names.
    name_key: str = ""
    tags_prefix: str = ""

    def bodies(self, payloads: list[bytes]) -> dict[str, bytes]:
        """The lines of each bucket. Messages that cannot be decoded, or have no time or no field, are left out."""
        lines: dict[str, list[str]] = {}
        for payload in payloads:
            try:
                message = self.decode(payload)
                for point in self._points(message):
                    bucket, line = self._line(point)
                    if line:
                        lines.setdefault(bucket, []).append(line)
            except (msgspec.DecodeError, UnicodeDecodeError, KeyError, ValueError):
                continue
        return {bucket: "".join(some).encode() for bucket, some in lines.items()}

    def _points(self, message: Any) -> Iterator[Message]:
        if not self.explode:
            yield flatten(message)
            return
        inner = message
        *path, last = self.explode.split(".")
        for name in path:
            inner = inner[name]
        elements = inner.pop(last)
        common = flatten(message)
        for element in elements:
            yield common | flatten(element)

    def _line(self, point: Message) -> tuple[str, str]:
        measurement, bucket = self.measurement, ""
        if self.route is not None:
            found = self.route(point)
            if found is None:
                return "", ""
            measurement, bucket = found
        if self.name_key:
            measurement = point.pop(self.name_key)
        tags = {tag: point.pop(key, None) for key, tag in self.tags.items()}
        if self.tags_prefix:
            for key in [key for key in point if key.startswith(self.tags_prefix)]:
                tags[key[len(self.tags_prefix):]] = point.pop(key)
        head = escaped(measurement)
        for tag in sorted(tags):
            if tags[tag]:
                head += f",{escaped(tag)}={escaped(str(tags[tag]))}"
        time = self.read_time(point.pop(self.time_key))
        names = self.fields or point
        fields = [f"{escaped(key)}={self._value(key, point[key])}" for key in names if point.get(key) is not None]
        return bucket, f"{head} {','.join(fields)} {time}\n" if fields else ""

    def _value(self, key: str, value: Any) -> str:
        if key in self.convert:
            return self.convert[key](value)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return str(value)
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'


def flatten(message: Any, prefix: str = "") -> Message:
    """One dict of all values, the keys of inner objects joined by underscores."""
    out: Message = {}
    for key, value in message.items():
        if isinstance(value, dict):
            out |= flatten(value, f"{prefix}{key}_")
        else:
            out[prefix + key] = value
    return out


def escaped(text: str) -> str:
    """A name, or a tag's value, as a line holds it."""
    return text.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


class PassingLoop(Struct, frozen=True):
    """The same for lines that pass through: each is taken apart, looked at, and put together again."""

    def bodies(self, payloads: list[bytes]) -> dict[str, bytes]:
        """The lines, their tags sorted."""
        lines = []
        for payload in payloads:
            for line in payload.decode().splitlines():
                head, field_set, time = line.split(" ")
                name, *tags = head.split(",")
                fields = dict(field.split("=") for field in field_set.split(","))
                for value in fields.values():
                    if value not in ("true", "false"):
                        float(value)
                body = ",".join([f"{key}={value}" for key, value in fields.items()])
                lines.append(f"{','.join([name, *sorted(tags)])} {body} {int(time)}\n")
        return {"": "".join(lines).encode()}
