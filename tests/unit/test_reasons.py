"""The classes of reasons: those that the code gives are all known, and documented."""

import re
from pathlib import Path

from pipeline.reasons import REASONS

ROOT = Path(__file__).parents[2]


def test_every_reason_that_the_code_gives_is_known() -> None:
    text = "".join(path.read_text() for path in (ROOT / "stages").rglob("*.py"))
    given = set(re.findall(r'(?:Reject|TooComplex)\(\s*"([a-z_]+)"', text))
    given |= set(re.findall(r'reason="([a-z_]+)"', text))
    assert len(given) > 15
    assert given <= set(REASONS)


def test_every_reason_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "reference" / "writing.rst").read_text()
    assert [reason for reason in REASONS if f"``{reason}``" not in text] == []
