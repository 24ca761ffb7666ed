"""Puts the documents of a configuration together, and remembers where each value comes from. Pure."""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from pipeline.config.inputs import Document, parent_key
from pipeline.config.toml_text import joined
from pipeline.errors import Problem


class Origin(Struct, frozen=True):
    """Where a value comes from."""

    #: A file, "PIPELINE_IGGY__ADDRESS", "--set" or an option such as "--workers".
    place: str
    #: What a relative path in it is relative to.
    folder: str
    #: The file, and the key as it is counted in it.
    document: Document | None = None
    key: str = ""

    @property
    def line(self) -> int:
        """The line in the file; 0 if it is not from a file."""
        return self.document.line(self.key) if self.document is not None else 0


class Merged:
    """The tables of all documents together.

    Tables merge, arrays of tables are appended to each other, and every other key has one value: two different ones are
    a mistake.
    """

    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self._origins: dict[str, Origin] = {}

    def add(self, document: Document) -> None:
        """Adds what a document has."""
        self._merge(self.tables, document.tables, "", "", document)

    def record(self, key: str, value: object, origin: Origin) -> None:
        """Notes that a value, with all that is in it, comes from elsewhere than a document."""
        for path in [path for path in self._origins if path == key or path.startswith((f"{key}.", f"{key}["))]:
            del self._origins[path]
        for path in _paths(value, key):
            self._origins[path] = origin

    def origin(self, key: str) -> Origin | None:
        """Where a key comes from, or the nearest table that it would be in; None for what is in no document."""
        while key:
            if key in self._origins:
                return self._origins[key]
            key = parent_key(key)
        return None

    def given(self, key: str) -> Origin | None:
        """Where a key itself comes from; None if it has its default."""
        return self._origins.get(key)

    def _merge(self, into: dict[str, Any], tables: dict[str, Any], key: str, own: str, document: Document) -> None:
        """`key` is the table's path in the whole, `own` that in its document."""
        for name, value in tables.items():
            path, own_path = joined(key, name), joined(own, name)
            if name not in into:
                into[name] = {} if isinstance(value, dict) else [] if _is_tables(value) else value
                if not isinstance(value, dict) and not _is_tables(value):
                    self._note(path, own_path, value, document)
            if isinstance(value, dict) and isinstance(into[name], dict):
                self._origins.setdefault(path, Origin(document.name, document.folder, document, own_path))
                self._merge(into[name], value, path, own_path, document)
            elif _is_tables(value) and (_is_tables(into[name]) or into[name] == []):
                self._origins.setdefault(path, Origin(document.name, document.folder, document, own_path))
                for index, element in enumerate(value):
                    self._note(f"{path}[{len(into[name])}]", f"{own_path}[{index}]", element, document)
                    into[name].append(element)
            elif not _same(into[name], value):
                self._conflict(path, own_path, document)

    def _note(self, path: str, own_path: str, value: object, document: Document) -> None:
        for below in _paths(value, ""):
            self._origins[path + below] = Origin(document.name, document.folder, document, own_path + below)

    def _conflict(self, path: str, own_path: str, document: Document) -> None:
        first = self.origin(path)
        other = f"{first.place}:{first.line}" if first is not None else "another file"
        self.problems.append(Problem(document.name, document.line(own_path), path,
                                     f"{path}: given twice with different values; {other} has another one. Remove one "
                                     "of them; to replace a value of a file, use --set or an environment variable"))


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def _paths(value: object, key: str) -> Iterator[str]:
    """The paths of a value and of all that is in it."""
    yield key
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _paths(item, f"{key}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, f"{key}[{index}]")
