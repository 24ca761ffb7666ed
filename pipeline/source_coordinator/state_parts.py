"""A state as messages of a topic: its content cut into parts of a size that every Iggy takes. Pure.

A part's payload is a piece of the content, so that the payloads of a state, one after the other, are what a state file
has; which piece it is, and who wrote it, is in the message's user headers. A state counts when all its parts are there,
with nothing between them: one that was being written when its writer died is passed over, and the one before it counts.
"""

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

#: Most bytes of one message: what Iggy takes however its limits are set, as `max_message_bytes` has it by default.
PART_BYTES = 1_000_000
_PART = re.compile(r"([1-9][0-9]{0,8}) of ([1-9][0-9]{0,8})")


class Writer(Struct, frozen=True):
    """Who writes states."""

    #: Of one run of a pipeline, whichever of its processes writes, or of one command: no two have the same.
    run: str
    #: For people: "process 17 on host".
    name: str


class Part(Struct, frozen=True):
    """One message."""

    #: Which state it is a part of; no two have the same.
    state: str
    #: From 1 to `of`.
    number: int
    of: int
    writer: Writer
    content: bytes

    def headers(self) -> dict[str, str]:
        """The message's user headers."""
        return {"state": self.state, "part": f"{self.number} of {self.of}", "run": self.writer.run,
                "writer": self.writer.name}


def cut(content: bytes, state: str, writer: Writer, size: int = PART_BYTES) -> Iterator[Part]:
    """The parts of a state, each of at most `size` bytes."""
    count = max(1, -(-len(content) // size))
    for number in range(count):
        yield Part(state, number + 1, count, writer, content[number * size:(number + 1) * size])


def part_of(headers: dict[str, str], payload: bytes) -> Part:
    """The part in a message. Raises ValueError when it is none."""
    found = _PART.fullmatch(headers.get("part", ""))
    state, run = headers.get("state", ""), headers.get("run", "")
    if found is None or not state or not run:
        raise ValueError("no part of a state")
    number, of = int(found[1]), int(found[2])
    if number > of:
        raise ValueError(f"part {number} of only {of}")
    return Part(state, number, of, Writer(run, headers.get("writer", "")), payload)


def joined(parts: Sequence[Part]) -> bytes | None:
    """The content of a state whose parts these are, in the log's order; None unless they are all, and no others."""
    if not parts or len(parts) != parts[0].of:
        return None
    for number, part in enumerate(parts, 1):
        if (part.state, part.number, part.of) != (parts[0].state, number, parts[0].of):
            return None
    return b"".join([part.content for part in parts])
