"""What an encoder gave, so that two can be compared: the order of a line's fields has no meaning."""

from typing import Any

from stages.mapping.batch import Encoded
from stages.mapping.records.merge import field_set


def normal(encoded: Encoded | None) -> Any:
    """Everything that has a meaning: lines, their messages and order, rejects, points that overwrote others."""
    if encoded is None:
        return None
    heads, times, lines, hashes = encoded.written
    points = [(head, time, _fields(line, head.rpartition("\n")[2], time))
              for head, time, line in zip(heads, times, lines, strict=True)]
    groups = [(group.bucket, group.points, group.sources, group.escapes) for group in encoded.groups]
    assert "".join(lines).encode() == encoded.body
    return groups, points, hashes, encoded.rejects, encoded.dropped, encoded.overwritten


def _fields(line: str, head: str, time: str) -> dict[str, str]:
    assert line.startswith(f"{head} ") and line.endswith(f" {time}\n"), line
    text = line[len(head) + 1:-len(time) - 2]
    fields = field_set(text)
    assert len(text) == sum(map(len, fields)) + sum(map(len, fields.values())) + len(fields) - 1, line
    return fields
