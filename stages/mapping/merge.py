"""Points of one batch with the same measurement, tags and time become one: InfluxDB would keep only one of them."""

import re
from collections.abc import Sequence
from typing import Final

#: `key=` and value of each field of a field set that we wrote.
_FIELD: Final = re.compile(r'([^=\\]*+(?:\\.[^=\\]*+)*+=)("[^"\\]*+(?:\\.[^"\\]*+)*+"|[^,]*+),?', re.DOTALL)


#: One point on its way into a body: index of its message, head (measurement and tags), time, the whole line with its
#: line break, and the bucket it goes to ("" is the configured one). A bare tuple: a batch has thousands.
Line = tuple[int, str, str, str, str]


def are_distinct(lines: Sequence[Line]) -> bool:
    """Whether no two lines are the same point."""
    return len({(head, time, bucket) for _, head, time, _, bucket in lines}) == len(lines)


def merged(lines: Sequence[Line]) -> tuple[list[Line], list[tuple[int, ...]]]:
    """One line for each point, at the place of the first, and the messages it comes from; later fields win."""
    bodies: dict[tuple[str, str, str], dict[str, str] | None] = {}
    firsts: dict[tuple[str, str, str], tuple[Line, list[int]]] = {}
    for line in lines:
        message, head, time, _, bucket = line
        key = head, time, bucket
        if key not in firsts:
            firsts[key] = line, [message]
            bodies[key] = None
            continue
        first, messages = firsts[key]
        messages.append(message)
        fields = bodies[key]
        if fields is None:
            fields = bodies[key] = fields_of(first)
        fields.update(fields_of(line))
    out = []
    for key, (first, _) in firsts.items():
        fields = bodies[key]
        if fields is not None:
            message, head, time, _, bucket = first
            body = ",".join([lead + value for lead, value in fields.items()])
            first = message, head, time, f"{head} {body} {time}\n", bucket
        out.append(first)
    return out, [tuple(dict.fromkeys(messages)) for _, messages in firsts.values()]


def fields_of(line: Line) -> dict[str, str]:
    """`key=` to value of a line's fields."""
    _, head, time, text, _ = line
    return dict(_FIELD.findall(text[len(head) + 1:-len(time) - 2]))
