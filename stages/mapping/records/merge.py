"""Merges points of one batch with the same measurement, tags and time, of which InfluxDB keeps only one."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

#: `key=` and value of each field of a field set that this package wrote.
_FIELD: Final = re.compile(r'([^=\\]*+(?:\\.[^=\\]*+)*+=)("[^"\\]*+(?:\\.[^"\\]*+)*+"|[^,]*+),?', re.DOTALL)


#: One point of a body: index of its message, series key, time, the whole line with its line break, and its bucket (""
#: is the configured one). A bare tuple because a batch has thousands.
Line = tuple[int, str, str, str, str]


class Merged(NamedTuple):
    """The points of a batch without duplicates."""

    #: Each at the place of its first occurrence; later fields win.
    lines: list[Line]
    #: The messages that each line comes from.
    sources: list[tuple[int, ...]]
    #: How many of the lines replaced a field of an earlier one.
    overwritten: int
    #: The first of them, and the line before it that has one of its fields.
    example: tuple[Line, Line] | None


def merged(lines: Sequence[Line]) -> Merged:
    """Merges the lines of each point."""
    same: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        _, head, time, _, bucket = line
        same.setdefault((head, time, bucket), []).append(line)
    out: list[Line] = []
    overwritten, example = 0, None
    for (head, time, bucket), some in same.items():
        first = some[0]
        if len(some) > 1:
            fields: dict[str, str] = {}
            for index, line in enumerate(some):
                more = fields_of(line)
                if not fields.keys().isdisjoint(more):
                    overwritten += 1
                    example = example or (_last_with(more, some[:index]), line)
                fields |= more
            body = ",".join([lead + value for lead, value in fields.items()])
            first = first[0], head, time, f"{head} {body} {time}\n", bucket
        out.append(first)
    sources = [tuple(dict.fromkeys([line[0] for line in some])) for some in same.values()]
    return Merged(out, sources, overwritten, example)


def _last_with(fields: dict[str, str], lines: Sequence[Line]) -> Line:
    """The last of the lines that have one of these fields; there is one."""
    return next(line for line in reversed(lines) if not fields.keys().isdisjoint(fields_of(line)))


def fields_of(line: Line) -> dict[str, str]:
    """`key=` to value of a line's fields."""
    _, head, time, text, _ = line
    return field_set(text[len(head) + 1:-len(time) - 2])


def field_set(text: str) -> dict[str, str]:
    """`key=` to value of a field set that this package wrote."""
    return dict(_FIELD.findall(text))
