"""`format = "ndjson"`: a JSON object on each line; empty lines do not count."""

from collections.abc import Iterator


def objects(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """The lines."""
    for number, line in enumerate(payload.split(b"\n"), 1):
        if line := line.strip(b" \t\r"):
            yield f"line {number}: ", line
