"""What a configuration is read from: files and folders of `-c`, and the documents that they hold."""

import os
import re
import stat
import sys
import tomllib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from pipeline.config.toml_text import key_lines
from pipeline.errors import Problem

#: Path that means standard input.
STANDARD_INPUT: Final = "-"
#: Largest configuration file, bytes: a larger file is not a configuration.
MAX_BYTES: Final = 10_000_000
#: Most files of one folder.
MAX_FILES: Final = 1_000
#: Deepest nesting of tables and arrays.
MAX_DEPTH: Final = 100
#: Most lines of one file that are left out because they are not TOML, so that the rest is checked, too.
_MAX_SKIPPED: Final = 50
#: How often one file is divided at a header that may not be there again.
_MAX_HALVES: Final = 20
#: A dotted key of very many parts.
_DEEP_KEY: Final = re.compile(rf"(?:^|[\[{{,])[ \t]*(?:[A-Za-z0-9_-]+[ \t]*\.[ \t]*){{{MAX_DEPTH}}}", re.MULTILINE)
_PLACE: Final = re.compile(r"\(at line ([0-9]+), column [0-9]+\)$")
#: A line that holds one key, and perhaps its value.
_KEY_LINE: Final = re.compile(r"""\s*([A-Za-z0-9_."'-]+)\s*(?:=|$|[^=\s])""")
#: The header of a table, and its first name.
_HEADER: Final = re.compile(r"""\s*\[\s*([A-Za-z0-9_-]+)\s*[.\]]""")
#: A header alone in its line.
_HEADER_LINE: Final = re.compile(r"^[ \t]*(\[[^\[\]\n]+\])[ \t]*(?:#.*)?$", re.MULTILINE)
#: A header, perhaps without all of its brackets at the end.
_OPEN_HEADER: Final = re.compile(r"[ \t]*(\[\[?)[ \t]*([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)[ \t]*\]?[ \t]*(?:#.*)?\r?$")
_ONE_HEADER: Final = "write all keys of a table below one header"
_ADVICE: Final = {
    "Invalid value": 'strings are written in quotes: key = "text"',
    "Cannot overwrite a value": "the key is given twice in its table",
    "Invalid initial character for a key part": "a key is made of letters, digits, _ and -, or quoted",
}


class ConfigInputs(Struct, frozen=True):
    """What a command was given as its configuration. The same inputs can be read again, as for a reload."""

    #: Files and folders of `-c`, in order; "-" is standard input, which can be read only once.
    paths: tuple[str, ...]
    #: `--set`, in order: "influxdb.url=http://host:8086".
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ", ".join(display_name(path) for path in self.paths)

    @property
    def files(self) -> tuple[str, ...]:
        """Absolute paths of the files and folders."""
        return tuple(os.path.realpath(path) for path in self.paths if path != STANDARD_INPUT)

    @property
    def can_be_read_again(self) -> bool:
        """Whether nothing is read from standard input."""
        return STANDARD_INPUT not in self.paths


def as_inputs(inputs: "ConfigInputs | str") -> ConfigInputs:
    """One path as inputs."""
    return ConfigInputs((inputs,)) if isinstance(inputs, str) else inputs


def display_name(path: str) -> str:
    """A path as errors name it."""
    return "standard input" if path == STANDARD_INPUT else path


class Document:
    """One file: its tables, and what is not TOML in it."""

    def __init__(self, name: str, folder: str, text: str, halves: int = _MAX_HALVES) -> None:
        """`folder` is what relative paths in it are relative to; `halves`: how often it may be divided."""
        self._halves = halves
        self.name = name
        self.folder = folder
        self.text = text
        #: What of it is TOML: the text without the lines that are not, which are empty.
        self._toml = text
        self.tables: dict[str, Any] = {}
        self.problems: list[Problem] = []
        #: Whether nothing of it could be read.
        self.is_broken = False
        #: Keys on lines that are not TOML, and so are not in `tables`.
        self.skipped: list[str] = []
        #: What follows a header that may not be there again, as a document of its own, so that it is checked, too.
        self.rest: Document | None = None
        self._parse()

    @cached_property
    def _lines(self) -> dict[str, int]:
        return key_lines(self._toml)

    def line(self, key: str) -> int:
        """Line of a key in this file, or of the table that it would be in; 0 if there is none either."""
        while key:
            if key in self._lines:
                return self._lines[key]
            key = parent_key(key)
        return 0

    def _parse(self) -> None:
        text = self.text
        if _DEEP_KEY.search(text):  # `tomllib` takes very long for it
            self._add_problem(0, f"nested too deep: more than {MAX_DEPTH} levels")
            self.is_broken = True
            return
        while True:
            try:
                self.tables = tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                line = _line_of(error)
                self._add_problem(line, _reason(error))
                goes_on = len(self.problems) < _MAX_SKIPPED
                if goes_on and (closed := _with_header_closed(text, line)) is not None:
                    text = closed
                    continue
                shorter = _without_line(text, line) if goes_on else None
                if shorter is None and self._halves and (parts := _divided(text, line)) is not None:
                    text, rest = parts
                    self.rest = Document(self.name, self.folder, rest, self._halves - 1)
                    for again, header in _repeated(text, rest):
                        self._add_problem(again, f"{header} is there twice; {_ONE_HEADER}")
                    continue
                if shorter is None:
                    self.is_broken = True
                    return
                text, key = shorter
                self.skipped.append(key)
                continue
            except RecursionError:
                self._add_problem(0, "nested too deep")
            except ValueError:  # an integer of thousands of digits
                self._add_problem(0, "a number is too long")
            else:
                self._toml = text
                if is_within(self.tables, MAX_DEPTH):
                    return
                self._add_problem(0, f"nested too deep: more than {MAX_DEPTH} levels")
            self.is_broken, self.tables = True, {}
            return

    def _add_problem(self, line: int, reason: str) -> None:
        self.problems.append(Problem(self.name, line, "", f"is not valid TOML: {reason}"))


def parent_key(key: str) -> str:
    """The table or array that a key is in: "topics[0]" of "topics[0].stream", "topics" of "topics[0]"."""
    if key.endswith("]"):
        return key.rpartition("[")[0]
    return key.rpartition(".")[0]


def read_documents(paths: Sequence[str]) -> tuple[list[Document], list[Problem]]:
    """All files of the paths in order, and a problem for each that cannot be read."""
    documents: list[Document] = []
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for path in files_of(paths, problems):
        try:
            real = os.path.realpath(path) if path != STANDARD_INPUT else path
            if real in seen:
                problems.append(Problem(display_name(path), 0, "", "is given twice; give each file once"
                                        + (f" (it is the same file as {seen[real]})" if seen[real] != path else "")))
                continue
            seen[real] = path
            folder = os.path.dirname(os.path.abspath(path)) if os.path.isfile(path) else os.getcwd()
            document: Document | None = Document(display_name(path), folder, _read(path).decode("utf-8-sig"))
            while document is not None:
                documents.append(document)
                document = document.rest
        except OSError as error:
            problems.append(Problem(display_name(path), 0, "",
                                    f"cannot be read: {error.strerror}; give a file with -c FILE"))
        except UnicodeDecodeError as error:
            problems.append(Problem(display_name(path), _read_line(error), "", "is not UTF-8 text; save it as UTF-8"))
        except _NoConfiguration as error:
            problems.append(Problem(display_name(path), 0, "", str(error)))
    told: set[tuple[str, int]] = set()
    for problem in [problem for one in documents for problem in one.problems]:
        # A line with a header that is there a third time is found twice.
        if not problem.line or (problem.place, problem.line) not in told:
            problems.append(problem)
        told.add((problem.place, problem.line))
    return documents, problems


class _NoConfiguration(ValueError):
    """Why a file is none that can be read."""


def _read(path: str) -> bytes:
    """Raises OSError and _NoConfiguration."""
    if "\0" in path:
        raise _NoConfiguration("is not a path of a file")
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise _NoConfiguration("is closed; give a file with -c FILE")
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _NoConfiguration(f"is larger than {MAX_BYTES:,} bytes; give the configuration with -c FILE")
    return content


def files_of(paths: Sequence[str], problems: list[Problem]) -> list[str]:
    """The files of the paths: a folder's are its `*.toml`, in the order of their names' bytes. Adds to `problems`."""
    found = []
    for path in paths:
        if path == STANDARD_INPUT or "\0" in path or not os.path.isdir(path):
            found.append(path)
            continue
        try:
            names = sorted((name for name in os.listdir(path) if name.endswith(".toml") and not name.startswith(".")
                            and not name.startswith("#")), key=os.fsencode)
        except OSError as error:
            problems.append(Problem(path, 0, "", f"cannot be read: {error.strerror}; give a file with -c FILE"))
            continue
        if not names or len(names) > MAX_FILES:
            problems.append(Problem(path, 0, "", "has no file *.toml; give a folder with configurations" if not names
                                    else f"has {len(names):,} files *.toml; at most {MAX_FILES:,} are read"))
            continue
        for name in names:
            if wrong := _wrong_with_entry(os.path.join(path, name)):
                problems.append(Problem(os.path.join(path, name), 0, "", wrong))
            else:
                found.append(os.path.join(path, name))
    return found


def _wrong_with_entry(path: str) -> str:
    """Why an entry of a folder is not read; a pipe, for one, would be waited for. Links to files are followed."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"cannot be read: {error.strerror}; remove it, or give it another ending"
    if stat.S_ISREG(mode):
        return ""
    return f"is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}; remove it, or give it another ending"


def _read_line(error: UnicodeDecodeError) -> int:
    return error.object.count(b"\n", 0, error.start) + 1


def _line_of(error: tomllib.TOMLDecodeError) -> int:
    match = _PLACE.search(str(error))
    return int(match[1]) if match else 0


def _reason(error: tomllib.TOMLDecodeError) -> str:
    reason = str(error)
    advice = _ADVICE.get(reason.partition(" (at ")[0])
    if reason.startswith("Cannot declare"):
        advice = _ONE_HEADER
    return f"{reason}; {advice}" if advice else reason


def _without_line(text: str, number: int) -> tuple[str, str] | None:
    """The text without a line that holds a single key, and the key; None if the line may be part of something else."""
    if not number:
        return None
    lines = text.split("\n")
    line = lines[number - 1] if number <= len(lines) else ""
    match = _KEY_LINE.match(line)
    if match is None or '"""' in line or "'''" in line \
            or any(line.count(left) != line.count(right) for left, right in ("[]", "{}")):
        return None
    lines[number - 1] = ""
    shorter = "\n".join(lines)
    try:
        tomllib.loads(shorter)
    except tomllib.TOMLDecodeError as error:
        # Else the mistake is not in this line alone.
        return (shorter, match[1]) if _line_of(error) > number else None
    except (ValueError, RecursionError):
        return None
    return shorter, match[1]


def _with_header_closed(text: str, number: int) -> str | None:
    """The text with the brackets that are missing at the end of a header; None if that is not what is wrong with the
    line."""
    lines = text.split("\n")
    match = _OPEN_HEADER.match(lines[number - 1]) if number and number <= len(lines) else None
    if match is None:
        return None
    closed = f"{match[1]}{match[2]}{']' * len(match[1])}"
    if closed == lines[number - 1]:
        return None
    lines[number - 1] = closed
    return "\n".join(lines)


def _divided(text: str, number: int) -> tuple[str, str] | None:
    """The text before a header that declares a table again, and the rest, with its lines where they were; None if the
    rest would mean something else alone: a table in an element of an array."""
    lines = text.split("\n")
    match = _HEADER.match(lines[number - 1]) if number and number <= len(lines) else None
    before = "\n".join(lines[:number - 1])
    if match is None or re.search(rf"^\s*\[\[\s*{re.escape(match[1])}\s*[.\]]", before, re.MULTILINE):
        return None
    return "\n".join(lines[:number - 1]), "\n" * (number - 1) + "\n".join(lines[number - 1:])


def _repeated(before: str, rest: str) -> Iterator[tuple[int, str]]:
    """Line and text of each header after the first one in `rest` that is in `before`, too."""
    known = set(_HEADER_LINE.findall(before))
    for match in list(_HEADER_LINE.finditer(rest))[1:]:
        if match[1] in known:
            yield rest.count("\n", 0, match.start(1)) + 1, match[1]


def is_within(tables: dict[str, Any], depth: int) -> bool:
    """Whether tables and arrays are nested at most `depth` deep."""
    level: list[Any] = [tables]
    for _ in range(depth):
        level = [item for value in level for item in (value.values() if isinstance(value, dict) else value)
                 if isinstance(item, dict | list)]
        if not level:
            return True
    return False
