"""What one message may be made of, at most: `max_depth`, `max_keys`, `max_points`, `max_values`, `max_expanded_bytes`.

A few bytes can mean much: a name repeated before each of its members, a text beside each element of an array. Each
limit is checked before what is over it is made, so that the memory and time of a message are bounded. Pure.
"""

import re
from typing import Final

from msgspec import Struct

from pipeline.config.schema import MappingConfig
from stages.mapping.reject import Reject

_STRING_OR_BRACKET: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|([\]}])', re.DOTALL)


class TooComplex(Reject):
    """A message is over one of its limits: nothing of it is written."""


class Limits(Struct, frozen=True):
    """The limits of one mapping. Its methods raise TooComplex."""

    depth: int
    keys: int
    points: int
    values: int
    expanded: int

    @classmethod
    def of(cls, config: MappingConfig) -> "Limits":
        """Those that a configuration gives."""
        return cls(config.max_depth, config.max_keys, config.max_points, config.max_values, config.max_expanded_bytes)

    def check_depth(self, depth: int) -> None:
        """Objects and arrays within each other; the outermost is 1."""
        if depth > self.depth:
            raise TooComplex("too_deep", f"objects or arrays within each other, deeper than max_depth = {self.depth}")

    def check_keys(self, count: int) -> None:
        """Keys of one point."""
        if count > self.keys:
            raise TooComplex("too_many_keys", f"{count} keys or more, over max_keys = {self.keys}")

    def check_points(self, count: int) -> None:
        """Points of the message."""
        if count > self.points:
            raise TooComplex("too_many_points", f"{count} points or more, over max_points = {self.points}")

    def check_values(self, count: int) -> None:
        """Values of the message, in all of its points."""
        if count > self.values:
            raise TooComplex("too_many_values", f"{count} values or more, over max_values = {self.values}")

    def check_bytes(self, count: int) -> None:
        """Bytes that the message becomes."""
        if count > self.expanded:
            raise TooComplex("too_expanded", f"{count} bytes or more become of it, over max_expanded_bytes = "
                                             f"{self.expanded}")

    def check_json(self, text: bytes) -> None:
        """The values in a valid JSON text, before an object is made for each of them: they are one more than commas."""
        if self.may_be_over(text) and text.count(b",") >= self.values:
            self.check_values(values_of(text))

    def may_be_over(self, text: bytes) -> bool:
        """Whether a JSON text is long enough to hold more values than allowed."""
        return len(text) // 2 >= self.values

    def check_kept(self, text: str, depth: int) -> None:
        """The depth of a value that stays JSON text, itself at `depth`."""
        if text.count("{") + text.count("[") + depth - 1 <= self.depth:
            return
        depth -= 1
        for match in _STRING_OR_BRACKET.finditer(text):
            if match[1]:
                depth -= 1
            elif match[0][0] != '"':
                depth += 1
                self.check_depth(depth)


def values_of(text: bytes) -> int:
    """How many values a JSON text has: one more than commas that are not in strings."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(text.split(b'"')[::2]).count(b",") + 1
