"""`format = "ndjson"`: one JSON object on each line; empty lines are skipped."""

from collections.abc import Iterator

from stages.mapping.reject import Reject


def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
    """Yields the lines."""
    begin, number = 0, 0
    while begin < len(payload):
        end = payload.find(b"\n", begin)
        end = len(payload) if end < 0 else end
        number += 1
        if line := payload[begin:end].strip(b" \t\r"):
            yield f"line {number}: ", line
        begin = end + 1
