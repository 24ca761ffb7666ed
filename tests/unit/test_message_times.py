"""Which of Iggy's times a mapping gets, also of producers that give none."""

from dataclasses import dataclass

import pytest

from pipeline.config.schema import MappingConfig
from stages.ingest.message_times import times_of


@dataclass
class Message:
    """As much of the client's message as is looked at (the client's own class can't be made by hand)."""

    iggy: int
    origin: int

    def timestamp(self) -> int:
        return self.iggy

    def origin_timestamp(self) -> int:
        return self.origin


@pytest.mark.parametrize(("source", "missing", "expected"), [
    ("iggy_timestamp", "reject", [100, 100]), ("field", "iggy_timestamp", [100, 100]),
    ("origin_timestamp", "reject", [90, 0]), ("origin_timestamp", "arrival", [90, 0]),
    ("origin_timestamp", "iggy_timestamp", [90, 100])])
def test_a_message_without_an_origin_time_gets_iggys_if_configured(
        source: str, missing: str, expected: list[int]) -> None:
    mapping = MappingConfig(timestamp_from=source, on_missing_timestamp=missing)  # type: ignore[arg-type]
    assert times_of([Message(100, 90), Message(100, 0)], mapping) == expected  # type: ignore[list-item]
