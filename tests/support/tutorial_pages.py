"""The pages of docs/tutorial as steps: what a reader types, saves and sees.

Every literal block of a page is one of them. A block after `::` is typed into a terminal, line by line. What differs
is said in comments before a block, which a reader does not see:

`.. test: in terminal NAME`                    from here on; a page begins in terminal "1"
`.. test: file NAME`                           the block is saved as NAME
`.. test: output`                              the last command has shown these lines in this order; `...`: anything
`.. test: keeps running, until it shows TEXT`  the last command of the block goes on when the next step begins
`.. test: again, until it shows TEXT`          the block's command is repeated meanwhile
`.. test: again, until it succeeds`            the same
`.. test: exit code N`, `exit code N or N`     of every command of the block; 0 where nothing is said
`.. test: needs PROGRAM`                       left out where it is not installed
`.. test: left out: REASON`                    never done
`.. test: Ctrl-C`                              instead of a block: it is pressed, and the command ends

Several comments may stand before a block, one a line.
"""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

PAGES = sorted((Path(__file__).parents[2] / "docs" / "tutorial").glob("*.rst"))
COMMENT = ".. test: "
#: The directive of a literal block in a language.
_CODE = re.compile(r"\.\. code(-block)?::")


class Step(Struct, kw_only=True):
    """One block of a page, or a key."""

    #: Number of its first line on the page, from 1.
    line: int
    terminal: str
    #: Of the block, without their indentation.
    lines: list[str] = []
    #: "Ctrl-C": it is pressed, and there is no block.
    key: str = ""
    #: Saved under this name, unless it is "".
    file: str = ""
    is_output: bool = False
    #: The last command goes on once it has shown this; "": each command has to end.
    running_when: str = ""
    #: The command is repeated until it shows this; "": until it succeeds; None: it is not repeated.
    again_until: str | None = None
    exit_codes: tuple[int, ...] = (0,)
    needs: tuple[str, ...] = ()
    #: Why it is not done.
    left_out: str = ""

    def commands(self) -> list[str]:
        """What is typed, each with its continuation lines."""
        return [command for command in re.split(r"(?<!\\)\n", "\n".join(self.lines)) if command.strip()]


def steps_of(text: str) -> list[Step]:
    """The steps of a page. Raises ValueError for a comment that is none of those above, and for a block with nothing
    to do."""
    lines = text.split("\n")
    steps: list[Step] = []
    terminal, said = "1", list[str]()
    for start, end in _pieces(lines):
        line = lines[start]
        if line.startswith(COMMENT):
            text = line.removeprefix(COMMENT).strip()
            if match := re.fullmatch(r"in terminal (\S+)", text):
                terminal = match[1]
            elif text == "Ctrl-C":
                step = Step(line=start + 1, terminal=terminal, key=text)
                for one in said:
                    _say(step, one)
                steps.append(step)
                said = []
            else:
                said.append(text)
        elif end > start + 1:
            block = textwrap.dedent("\n".join(lines[start + 1:end])).strip("\n").split("\n")
            step = Step(line=start + 1, terminal=terminal, lines=block)
            for text in said:
                _say(step, text)
            if _CODE.match(line) and not (step.file or step.is_output or step.left_out):
                raise ValueError(f"line {start + 1}: no comment says what becomes of this block")
            steps.append(step)
            said = []
    if said:
        raise ValueError(f"no block follows: {said}")
    return steps


def _pieces(lines: list[str]) -> Iterator[tuple[int, int]]:
    """(number of a line, number after its block): comments of tests, and lines that a literal block follows."""
    number = 0
    while number < len(lines):
        line = lines[number]
        is_block = line.endswith("::") and not line.startswith((" ", "..")) or _CODE.match(line)
        end = number + 1
        if is_block:
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" ")):
                end += 1
        if line.startswith(COMMENT) or is_block:
            yield number, end
        number = end


def _say(step: Step, text: str) -> None:
    """What a comment says of a block."""
    if match := re.fullmatch(r"file (\S+)", text):
        step.file = match[1]
    elif text == "output":
        step.is_output = True
    elif match := re.fullmatch(r"keeps running, until it shows (.+)", text):
        step.running_when = match[1]
    elif match := re.fullmatch(r"again, until it shows (.+)", text):
        step.again_until = match[1]
    elif text == "again, until it succeeds":
        step.again_until = ""
    elif match := re.fullmatch(r"exit code (\d+(?: or \d+)*)", text):
        step.exit_codes = tuple(map(int, match[1].split(" or ")))
    elif match := re.fullmatch(r"needs (\S+)", text):
        step.needs += (match[1],)
    elif match := re.fullmatch(r"left out: (.+)", text):
        step.left_out = match[1]
    else:
        raise ValueError(f"line {step.line}: not understood: {text}")


def missing_line(expected: list[str], shown: str) -> str | None:
    """The first of these lines that was not shown behind those before it; None: all were. `...` stands for anything,
    and white space at both ends does not count."""
    rest = [line.strip() for line in shown.split("\n")]
    for line in filter(None, map(str.strip, expected)):
        pattern = re.compile(".*".join(map(re.escape, line.split("..."))))
        found = next((number for number, one in enumerate(rest) if pattern.fullmatch(one)), None)
        if found is None:
            return line
        rest = rest[found + 1:]
    return None
