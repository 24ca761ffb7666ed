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


def test_every_known_reason_is_given_by_the_code() -> None:
    text = "".join(path.read_text() for top in ("stages", "pipeline") for path in (ROOT / top).rglob("*.py")
                   if path.name != "reasons.py")
    assert [reason for reason in REASONS if f'"{reason}"' not in text] == []


def test_the_documentation_has_the_same_table() -> None:
    text = (ROOT / "docs" / "reference" / "writing.rst").read_text()
    rows = text[re.search(r"^reason +what is wrong\n=+ =+\n", text, re.MULTILINE).end():]  # type: ignore[union-attr]
    table = dict(re.findall(r"^``([a-z_]+)`` +(.+)$", rows[:rows.index("\n====")], re.MULTILINE))
    assert table == dict(REASONS)
