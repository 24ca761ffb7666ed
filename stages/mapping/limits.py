"""Limits of one message: `max_depth`, `max_keys`, `max_points`, `max_values`, `max_expanded_bytes`. Pure.

A few bytes can expand to a large result: a name repeated before each of its members, a text beside each element of an
array. Each limit is checked before the result is made, so that the memory and time of a message are bounded.
"""

import re
from typing import Final

from msgspec import Struct

from pipeline.config.schema import MappingConfig
from stages.mapping.reject import Reject

_STRING_OR_BRACKET: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|([\]}])', re.DOTALL)


class TooComplex(Reject):
    """A message exceeds a limit: nothing of it is written."""


class Limits(Struct, frozen=True):
    """The limits of one mapping. Its methods raise TooComplex."""

    depth: int
    keys: int
    points: int
    values: int
    expanded: int

    @classmethod
    def of(cls, config: MappingConfig) -> "Limits":
        """The limits in a mapping's configuration."""
        return cls(config.max_depth, config.max_keys, config.max_points, config.max_values, config.max_expanded_bytes)

    def check_depth(self, depth: int) -> None:
        """Checks the nesting of objects and arrays; the outermost is 1."""
        if depth > self.depth:
            raise TooComplex("too_deep", f"objects or arrays are nested deeper than max_depth = {self.depth}")

    def check_keys(self, count: int) -> None:
        """Checks the number of keys of one point."""
        if count > self.keys:
            raise TooComplex("too_many_keys", f"{count} keys or more, over max_keys = {self.keys}")

    def check_points(self, count: int) -> None:
        """Checks the number of points of the message."""
        if count > self.points:
            raise TooComplex("too_many_points", f"{count} points or more, over max_points = {self.points}")

    def check_values(self, count: int) -> None:
        """Checks the number of values in all points of the message."""
        if count > self.values:
            raise TooComplex("too_many_values", f"{count} values or more, over max_values = {self.values}")

    def check_bytes(self, count: int) -> None:
        """Checks the bytes that the message expands to."""
        if count > self.expanded:
            raise TooComplex("too_expanded", f"it expands to {count} bytes or more, over max_expanded_bytes = "
                                             f"{self.expanded}")

    def check_json(self, text: bytes) -> None:
        """Checks the number of values in a valid JSON text, by its commas, before objects are made of them."""
        if self.may_be_over(text) and text.count(b",") >= self.values:
            self.check_values(values_of(text))

    def may_be_over(self, text: bytes) -> bool:
        """Whether a JSON text is long enough to hold more values than allowed."""
        return len(text) // 2 >= self.values

    def check_kept(self, text: str, depth: int) -> None:
        """Checks the nesting in a value that stays JSON text and is itself at `depth`."""
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
    """Number of values in a JSON text: one more than its commas outside strings."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(text.split(b'"')[::2]).count(b",") + 1
