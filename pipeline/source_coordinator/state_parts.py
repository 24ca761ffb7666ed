"""A state as messages of a topic: its content is cut into parts of a size that every Iggy server accepts. Pure.

The payloads of a state's parts, joined, are the content of a state file. The number of the part and its writer are in
the message's user headers. A state is valid when all of its parts are present with no other message between them: one
whose writer died before its last part is skipped, and the one before it is used.
"""

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

#: Bytes of one message that Iggy accepts whatever its limits are: the default of `max_message_bytes`.
PART_BYTES = 1_000_000
_PART = re.compile(r"([1-9][0-9]{0,8}) of ([1-9][0-9]{0,8})")


class Writer(Struct, frozen=True):
    """The process or command that writes states."""

    #: Unique to one run of a pipeline, or of one command.
    run: str
    #: For people: "process 17 on host".
    name: str


class Part(Struct, frozen=True):
    """One message of a state."""

    #: Unique to the state that it is a part of.
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
    """The part in a message. Raises ValueError when the message is not a part."""
    found = _PART.fullmatch(headers.get("part", ""))
    state, run = headers.get("state", ""), headers.get("run", "")
    if found is None or not state or not run:
        raise ValueError("not a part of a state")
    number, of = int(found[1]), int(found[2])
    if number > of:
        raise ValueError(f"part {number} of only {of}")
    return Part(state, number, of, Writer(run, headers.get("writer", "")), payload)


def joined(parts: Sequence[Part]) -> bytes | None:
    """The content of a state from its parts in the log's order; None unless these are all of its parts, and no
    others."""
    if not parts or len(parts) != parts[0].of:
        return None
    for number, part in enumerate(parts, 1):
        if (part.state, part.number, part.of) != (parts[0].state, number, parts[0].of):
            return None
    return b"".join([part.content for part in parts])
