"""Paths of steps: parts joined by dots, with `*` and `?` in a part, and `**` for any number of parts. Pure.

`a.b` is the member b of the object a, or else a member whose name is "a.b". In an array, a number is an index and `*`
each element. A backslash takes the meaning from a dot, star, question mark or backslash behind it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from stages.mapping.reject import shown
from stages.mapping.steps.errors import BadPath, StepFailed

#: A message, or an object in it. Values are dict, list, str, int, Decimal, bool and None.
Document = dict[str, Any]
MISSING: Final[Any] = object()
#: Any number of parts.
_DEEP: Final = object()
_INDEX: Final = re.compile("0|[1-9][0-9]{0,8}")


class Place(NamedTuple):
    """Where a value is: in an object by its key, or in an array by its index."""

    holder: Any
    key: Any
    #: What the stars and question marks of the path stand for.
    captures: tuple[str, ...] = ()
    #: Where the holder is; None if it is the message.
    parent: "Place | None" = None

    @property
    def value(self) -> Any:
        """The value there."""
        return self.holder[self.key]


#: Names that a part with wildcards remembers, and their length, at most: messages mostly have the same.
_KNOWN_NAMES, _KNOWN_CHARS = 1_000, 100
#: Messages after which names are learned anew.
_KNOWN_CALLS: Final = 10_000


class Glob(NamedTuple):
    """A part with stars or question marks."""

    pattern: re.Pattern[str]
    #: It is `*`, which takes each member and each element.
    is_any: bool
    #: Names that were met -> what the wildcards stand for, or None where the name does not fit.
    known: dict[str, tuple[str, ...] | None]

    def captures(self, name: str) -> tuple[str, ...] | None:
        """What the wildcards stand for; None where the name does not fit."""
        if name in self.known:
            return self.known[name]
        match = self.pattern.fullmatch(name)
        found = match.groups() if match is not None else None
        if len(name) <= _KNOWN_CHARS:
            if len(self.known) >= _KNOWN_NAMES:
                self.known.clear()
            self.known[name] = found
        return found


class Path:
    """A path as it is configured."""

    def __init__(self, text: str) -> None:
        """Raises BadPath."""
        self.text = text
        self.parts: list[str | Glob | object] = [_part(part) for part in _split(text)]
        if self.parts[-1] is _DEEP:
            raise BadPath('ends with "**"; end with a name or "*"')
        if self.parts.count(_DEEP) > 1:
            raise BadPath('has "**" twice')
        self.is_exact = all(isinstance(part, str) for part in self.parts)
        #: Whether it is a name alone.
        self.is_flat = len(self.parts) == 1 and self.is_exact
        self.keys: tuple[str, ...] = tuple([part for part in self.parts if isinstance(part, str)])
        #: Number of stars and question marks.
        self.wildcards = sum([part.pattern.groups for part in self.parts if isinstance(part, Glob)])

    def places(self, document: Document) -> list[Place]:
        """Where the path's values are, in the message's order."""
        if not self.is_exact:
            return list(_places(document, self.parts, 0, (), None))
        found = self.place(document)
        return [] if found is None else [found]

    def place(self, document: Document) -> Place | None:
        """Where the value of an exact path is."""
        keys = self.keys
        if self.is_flat:
            return Place(document, keys[0]) if keys[0] in document else None
        return _place(document, keys)

    def get(self, document: Document) -> Any:
        """The value of an exact path; MISSING if there is none."""
        if self.is_flat:
            return document.get(self.keys[0], MISSING)
        found = self.place(document)
        return MISSING if found is None else found.value

    def take(self, document: Document) -> Any:
        """The same, taken out of the document, with objects that are empty then."""
        return take(document, self.keys)


def _split(text: str) -> list[list[str]]:
    """The parts of a path, each as characters, with a backslash before those that it stands for itself."""
    pieces = re.findall(r"\\.|[^\\]", text, re.DOTALL)
    if sum(map(len, pieces)) != len(text):
        raise BadPath("ends with a backslash")
    parts: list[list[str]] = [[]]
    for piece in pieces:
        if piece == ".":
            parts.append([])
        else:
            parts[-1].append(piece)
    if [] in parts:
        raise BadPath("has an empty part")
    return parts


def _part(pieces: Sequence[str]) -> str | Glob | object:
    text = "".join(pieces)
    if text == "**":
        return _DEEP
    if "**" in text:
        raise BadPath('has "**" beside other characters; it stands alone between dots')
    if "*" not in pieces and "?" not in pieces:
        return "".join([piece[-1] for piece in pieces])
    return Glob(re.compile(_pattern(pieces), re.DOTALL), text == "*", {})


def _pattern(pieces: Sequence[str]) -> str:
    """A pattern that takes the shortest text for each star, and never goes back over one: linear in the name."""
    chunks = [""]
    for piece in pieces:
        if piece == "*":
            chunks.append("")
        else:
            chunks[-1] += "(.)" if piece == "?" else re.escape(piece[-1])
    first, *rest = chunks
    if not rest:
        return first
    *inner, last = rest
    return first + "".join([f"(?>(.*?){chunk})" for chunk in inner]) + f"(.*){last}"


def _place(document: Any, keys: Sequence[str]) -> Place | None:
    at, holder, parent = 0, document, None
    while True:
        step = _step(holder, keys, at)
        if step is None:
            return None
        key, at = step
        found = Place(holder, key, (), parent)
        if at == len(keys):
            return found
        holder, parent = holder[key], found


def find_array(document: Document, keys: Sequence[str]) -> tuple[Place | None, int]:
    """Where the first array on a path is, or else the path's value, and how many keys lead there.

    If there is neither, the number is less than that of the keys, and the place that of an object or another value.
    """
    at, value, found = 0, document, None
    while at < len(keys) and not isinstance(value, list):
        step = _step(value, keys, at)
        if step is None:
            break
        key, at = step
        found = Place(value, key)
        value = found.value
    return found, at


def take(document: Document, keys: Sequence[str]) -> Any:
    """Takes the value at a path out of a document, with objects that are empty then; MISSING if there is none."""
    found = _place(document, keys)
    if found is None:
        return MISSING
    value = found.value
    remove([found])
    return value


def _step(holder: Any, keys: Sequence[str], at: int) -> tuple[Any, int] | None:
    """The key of `holder` that the parts from `at` on begin with, and the number of the next part."""
    key = keys[at]
    if isinstance(holder, dict):
        if key in holder:
            return key, at + 1
        for end in range(at + 2, len(keys) + 1):
            if (joined := ".".join(keys[at:end])) in holder:
                return joined, end
    elif isinstance(holder, list) and _INDEX.fullmatch(key) and int(key) < len(holder):
        return int(key), at + 1
    return None


def _places(value: Any, parts: Sequence[str | Glob | object], at: int, captures: tuple[str, ...],
            parent: Place | None) -> Iterator[Place]:
    part = parts[at]
    if part is _DEEP:
        yield from _places(value, parts, at + 1, captures, parent)
        for key, member in _members(value):
            if isinstance(member, dict | list):
                yield from _places(member, parts, at, captures, Place(value, key, (), parent))
        return
    for key, captured in list(_matching(value, part)):
        place = Place(value, key, captures + captured, parent)
        if at + 1 == len(parts):
            yield place
        elif isinstance(value[key], dict | list):
            yield from _places(value[key], parts, at + 1, captures + captured, place)
    if isinstance(part, str) and isinstance(value, dict) and part not in value:
        yield from _joined(value, parts, at, captures, parent)


def _joined(value: Document, parts: Sequence[str | Glob | object], at: int, captures: tuple[str, ...],
            parent: Place | None) -> Iterator[Place]:
    """The places below a member whose name has dots."""
    name = str(parts[at])
    for end in range(at + 1, len(parts)):
        part = parts[end]
        if not isinstance(part, str):
            return
        name += f".{part}"
        if name in value:
            place = Place(value, name, captures, parent)
            if end + 1 == len(parts):
                yield place
            elif isinstance(value[name], dict | list):
                yield from _places(value[name], parts, end + 1, captures, place)
            return


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    return iter(value.items()) if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else iter(())


def _matching(value: Any, part: object) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """The keys of an object, or indices of an array, that a part fits, with what its wildcards stand for."""
    if isinstance(part, Glob):
        if isinstance(value, dict):
            for key in value:
                if (found := part.captures(key)) is not None:
                    yield key, found
        elif isinstance(value, list) and part.is_any:
            for index in range(len(value)):
                yield index, (str(index),)
    elif isinstance(part, str):
        if isinstance(value, dict):
            if part in value:
                yield part, ()
        elif isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
            yield int(part), ()


def remove(places: Sequence[Place]) -> None:
    """Takes values out of their objects and arrays, and objects and arrays that are empty then out of their objects."""
    arrays: dict[int, tuple[list[Any], set[int]]] = {}
    for holder, key, *_ in places:
        if isinstance(holder, dict):
            holder.pop(key, None)
        else:
            arrays.setdefault(id(holder), (holder, set()))[1].add(key)
    for array, gone in arrays.values():
        array[:] = [element for index, element in enumerate(array) if index not in gone]
    for place in places:
        while not place.holder and place.parent is not None and isinstance(place.parent.holder, dict):
            place = place.parent
            place.holder.pop(place.key, None)


def put(document: Document, keys: Sequence[str], value: Any, replace: bool = False) -> None:
    """Puts a value at a path, whose objects are made where they are missing.

    Raises StepFailed where another value is in its way, but for one that it is to `replace`.
    """
    holder: Any = document
    for at, key in enumerate(keys[:-1]):
        inner = _inner(holder, key)
        if inner is MISSING or inner is None:
            inner = holder[key] = {}
        if not isinstance(inner, dict | list):
            raise StepFailed(f"{shown('.'.join(keys[:at + 1]))} is no object, and so has no {shown(keys[at + 1])}")
        holder = inner
    key = keys[-1]
    if isinstance(holder, list):
        if not (_INDEX.fullmatch(key) and int(key) < len(holder)):
            raise StepFailed(f"{shown('.'.join(keys))}: the array has no element {shown(key)}")
        holder[int(key)] = value
        return
    if not replace:
        check_free(holder, key, value)
    holder[key] = value


def _inner(holder: Any, key: str) -> Any:
    if isinstance(holder, list):
        index = int(key) if _INDEX.fullmatch(key) else len(holder)
        if index >= len(holder):
            raise StepFailed(f"the array has no element {shown(key)}")
        return holder[index]
    return holder.get(key, MISSING)


def check_free(holder: Document, key: str, value: Any) -> None:
    """Raises StepFailed where an object has another value at a key already. Null does not count, nor an object
    that is empty, as after its members were renamed."""
    there = holder.get(key)
    if there is not None and there != {} and value is not None and not same(there, value):
        raise StepFailed(f"{shown(key)} has another value already; exclude or rename it in a step before this one")


def same(first: Any, second: Any) -> bool:
    """Whether two values are the same: of one kind, and equal."""
    return type(first) is type(second) and bool(first == second)


def merge(into: Document, members: Document) -> None:
    """Adds members to a document. Raises StepFailed where it has another value for a key."""
    for key, value in members.items():
        if value is None and key in into:
            continue
        if key in into:
            check_free(into, key, value)
        into[key] = value


_State = tuple[Sequence[str | Glob | object], int]


class _Choice:
    """What some paths name of an object, from some part of each on."""

    def __init__(self, states: Sequence[_State], room: list[int]) -> None:
        """`room` holds the number of names that may still be remembered, by all choices of some paths together."""
        self._room = room
        # A path with "**" goes on at each level, and also behind the stars.
        self._states = [*states, *[(parts, at + 1) for parts, at in states if parts[at] is _DEEP]]
        #: Names that were met -> what is taken of their values.
        self._known: dict[str, bool | _Choice] = {}

    def of(self, key: Any) -> "bool | _Choice":
        """What is taken of a member or an element: all, nothing, or some of what is in it."""
        found = self._known.get(key)
        if found is None:
            found = self._found(key)
            if isinstance(key, str) and len(key) <= _KNOWN_CHARS and self._room[0]:
                self._room[0] -= 1
                self._known[key] = found
        return found

    def _found(self, key: Any) -> "bool | _Choice":
        inner: list[_State] = []
        for parts, at in self._states:
            if parts[at] is _DEEP:
                inner.append((parts, at))
            elif end := _fits(parts, at, key):
                if end == len(parts):
                    return True
                inner.append((parts, end))
        return _Choice(inner, self._room) if inner else False


class Kept:
    """The part of a document that some paths name, with everything inside them. Not thread-safe: it learns names."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._states = [(path.parts, 0) for path in paths]
        self._calls = 0

    def __call__(self, document: Document) -> Document:
        """That part, without a copy of what is kept as a whole."""
        if self._calls % _KNOWN_CALLS == 0:
            self._choice = _Choice(self._states, [_KNOWN_NAMES])
        self._calls += 1
        found = _kept(document, self._choice)
        return found if isinstance(found, dict) else {}


def _kept(value: Any, choice: _Choice) -> Any:
    """What remains of an object or array; MISSING if nothing does."""
    out: list[tuple[Any, Any]] = []
    for key, member in _members(value):
        taken = choice.of(key)
        if taken is True:
            out.append((key, member))
        elif taken is not False and isinstance(member, dict | list):
            rest = _kept(member, taken)
            if rest is not MISSING:
                out.append((key, rest))
    if not out:
        return MISSING
    return dict(out) if isinstance(value, dict) else [member for _, member in out]


def _fits(parts: Sequence[str | Glob | object], at: int, key: Any) -> int:
    """The number of the part behind those that a key fits; 0 if it does not."""
    part = parts[at]
    if isinstance(key, int):
        return at + 1 if part == str(key) or isinstance(part, Glob) and part.is_any else 0
    if isinstance(part, Glob):
        return at + 1 if part.captures(key) is not None else 0
    if part == key:
        return at + 1
    if "." in key and key.startswith(f"{part}."):
        for end in range(at + 1, len(parts)):
            part = f"{part}.{parts[end]}"
            if part == key:
                return end + 1
    return 0


def new_names(path: Path, text: str) -> Callable[[Sequence[str]], Sequence[str]]:
    """Makes the keys of a new path from what the wildcards of an old one stand for. Raises BadPath."""
    parts = _split(text)
    stars = sum([part.count("*") for part in parts])
    if stars != path.wildcards:
        raise BadPath(f"has {stars} stars, and {path.text} has {path.wildcards} wildcards; give as many")
    if not stars:
        keys = [_part(part) for part in parts]
        return lambda captures: keys  # type: ignore[return-value]
    pieces = [[piece if piece == "*" else piece[-1] for piece in part] for part in parts]

    def named(captures: Sequence[str]) -> Sequence[str]:
        left = iter(captures)
        return ["".join([next(left) if piece == "*" else piece for piece in part]) for part in pieces]

    return named
