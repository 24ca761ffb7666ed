"""`format = "ndjson"`: a JSON object on each line; empty lines do not count."""

from collections.abc import Iterator

from stages.mapping.reject import Reject


def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
    """The lines."""
    begin, number = 0, 0
    while begin < len(payload):
        end = payload.find(b"\n", begin)
        end = len(payload) if end < 0 else end
        number += 1
        if line := payload[begin:end].strip(b" \t\r"):
            yield f"line {number}: ", line
        begin = end + 1
