"""`configs/broken-on-purpose.toml`: each of its mistakes is named in one go, with its line."""

from pathlib import Path

import pytest

from pipeline.commands.config import examine

PATH = Path(__file__).parents[2] / "configs" / "broken-on-purpose.toml"
#: (line, what is said about it), from the comments of the file.
EXPECTED = [(number, line.partition("# ! ")[2]) for number, line in enumerate(PATH.read_text().split("\n"), 1)
            if "# ! " in line]


@pytest.fixture(scope="module")
def found() -> list[tuple[int, str]]:
    """(line, what is said) of each mistake."""
    examined = examine(str(PATH), {})
    assert examined.config is None
    assert {problem.place for problem in examined.problems} == {str(PATH)}
    return [(problem.line, problem.text) for problem in examined.problems]


@pytest.mark.parametrize(("line", "said"), EXPECTED, ids=lambda value: str(value)[:40])
def test_a_mistake_is_named_with_its_line(found: list[tuple[int, str]], line: int, said: str) -> None:
    assert any(number == line and said in text for number, text in found), [one for one in found if one[0] == line]


def test_nothing_else_is_said(found: list[tuple[int, str]]) -> None:
    assert len(EXPECTED) >= 40
    assert [one for one in found if one[0] not in {line for line, _ in EXPECTED}] == []
