"""`pipeline config migrate`: renews old keys in the text of files, with their comments and layout."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from msgspec import Struct

from pipeline.commands.configuration.files import replace_file
from pipeline.config.inputs import Document, read_documents
from pipeline.config.renamed import RenamedKey, renamed_key
from pipeline.config.secret_keys import without_password
from pipeline.config.toml_text import KeyPlace, scan
from pipeline.config.toml_values import toml_key
from pipeline.errors import ConfigError
from pipeline.printable import printable

_NUMBER: Final = re.compile(r"[0-9][0-9_]*(\.[0-9]+)?")


class Edit(Struct, frozen=True):
    """A piece of the text, and what takes its place."""

    start: int
    end: int
    text: str


class Migrated(Struct, frozen=True):
    """A renewed text."""

    text: str
    #: A line for each key that was renewed.
    done: list[str]
    #: A line for each that a person has to look at.
    remaining: list[str]


def migrate_files(paths: tuple[str, ...], write: bool) -> None:
    """Renews the files; without `write`, prints what would change. Raises ConfigError for a file that is not TOML."""
    documents, problems = read_documents(paths)
    if problems:
        raise ConfigError(", ".join(paths), problems)
    for document in documents:
        migrated = migrated_text(document)
        for line in migrated.done:
            click.echo(printable(f"{document.name}:{line}"), err=True)
        for line in migrated.remaining:
            click.echo(printable(f"pipeline: warning: {document.name}:{line}"), err=True)
        if not migrated.done:
            click.echo(printable(f"{document.name}: has no old keys"), err=True)
        if not write:
            for line in _changes(document, migrated.text):
                click.echo(line)
        elif migrated.done:
            replace_file(Path(document.name), migrated.text)


def _changes(document: Document, text: str) -> Iterator[str]:
    """The lines that differ, as `diff -u` has them; no others, because they may be secret."""
    for line in difflib.unified_diff(document.text.splitlines(), text.splitlines(), document.name, document.name, n=0,
                                     lineterm=""):
        yield printable(without_password(line))


def migrated_text(document: Document) -> Migrated:
    """The text with new names and values; everything else stays as it is."""
    text, edits, done, remaining = document.text, [], [], []
    places = scan(text)
    for place in places:
        renamed = renamed_key(place.path)
        if renamed is None or place.name[0] == place.name[1]:
            continue
        old = place.path.rpartition(".")[2]
        edits.append(Edit(*place.name, toml_key(renamed.name)))
        line = f"{place.line}: {old} is now {renamed.name}"
        if renamed.factor != 1:
            value, unit = _scaled(text[slice(*place.value)], renamed), " (milliseconds)"
            if value is None:
                remaining.append(f"{place.line}: {renamed.name} is in milliseconds: multiply its value by "
                                 f"{renamed.factor}")
            else:
                edits.append(Edit(*place.value, value))
                line += unit
        elif renamed.name == "urls":
            moved = _first_server(text, place, places)
            edits += moved
            if not moved and text[slice(*place.value)]:
                remaining.append(f"{place.line}: {renamed.advice}")
        done.append(line)
    for edit in sorted(dict.fromkeys(edits), key=lambda one: one.start, reverse=True):
        text = text[:edit.start] + edit.text + text[edit.end:]
    return Migrated(text, list(dict.fromkeys(done)), remaining)


def _scaled(value: str, renamed: RenamedKey) -> str | None:
    """A number in the new unit; None where it is none, such as "${SECONDS}"."""
    if not _NUMBER.fullmatch(value):
        return None
    return str(round(float(value.replace("_", "")) * renamed.factor))


def _first_server(text: str, place: KeyPlace, places: list[KeyPlace]) -> list[Edit]:
    """`url` of the same table becomes the first of `urls`, and its line is removed; none if that is not possible."""
    table = place.path.rpartition(".")[0]
    url = next((one for one in places if one.path == f"{table}.url"), None)
    start, end = place.value
    if url is None or not text.startswith("[", start):
        return []
    line_start = text.rfind("\n", 0, url.name[0]) + 1
    line_end = text.find("\n", url.value[1])
    line_end = len(text) if line_end < 0 else line_end + 1
    rest = text[url.value[1]:line_end].strip()
    if text[line_start:url.name[0]].strip() or rest:
        return []
    inner = text[start + 1:end - 1].strip()
    return [Edit(start + 1, start + 1, text[slice(*url.value)] + (", " if inner else "")),
            Edit(line_start, line_end, "")]
