"""Verbs that make several messages of one: explode, zip."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pipeline.config.steps_schema import ExplodeStep, ZipStep
from stages.mapping.steps.context import Context, described, path_of, target
from stages.mapping.steps.errors import BadStep, NothingThere, StepFailed
from stages.mapping.steps.keys import copied, new_paths
from stages.mapping.steps.paths import Document, Glob, Path, Place, find_array, merge, put, remove, take

#: Makes messages: of each the name for errors, such as "element 2 of readings: ", and itself or what is wrong with it.
ApplyMany = Callable[[Document, Context], Iterator[tuple[str, Document | StepFailed]]]


class _Element:
    """How an element becomes a message with what is beside it."""

    def __init__(self, step: ExplodeStep) -> None:
        self.key = target(step.key, "key")
        self.to = target(step.to)

    def joined(self, rest: Document, element: Any, name: str, identity: Any, is_last: bool) -> Document | StepFailed:
        """`name` is the key of an element that is no object; `identity` its index or name."""
        document: Document = copied(rest)
        try:
            if self.to and is_last:
                put(document, self.to, element)
            elif isinstance(element, dict):
                merge(document, element)
            else:
                put(document, (name,), element)
            if self.key and is_last:
                put(document, self.key, identity)
        except StepFailed as error:
            return StepFailed(f"{error}" + ("" if self.to or not isinstance(element, dict) else ", or set `to`"))
        return document


def explode(step: ExplodeStep) -> ApplyMany:
    """`do = "explode"`."""
    path = path_of(step.path)
    if any(not isinstance(part, str) for part in path.parts[:-1]):
        raise BadStep("path", f'"{step.path}": wildcards are allowed in the last part only; arrays on the way are '
                              "exploded without")
    last = path.parts[-1]
    exploder = _Exploder(path, last if isinstance(last, Glob) else None, _Element(step))
    return lambda document, context: exploder.messages(document, path.keys, context, "")


class _Exploder(NamedTuple):
    """Explodes the arrays on a path one after the other."""

    path: Path
    #: The last part of the path, if it has wildcards.
    glob: Glob | None
    element: _Element

    def messages(self, document: Document, keys: Sequence[str], context: Context, label: str
                 ) -> Iterator[tuple[str, Document | StepFailed]]:
        """The messages made of what is at `keys`, the rest of the path. Raises NothingThere and StepFailed."""
        place, end = find_array(document, keys)
        value = place.value if place is not None else document
        if end < len(keys) and not isinstance(value, list) or value is None:
            raise NothingThere(self.path.text)
        if isinstance(value, list):
            take(document, keys[:end])
            context.limits.check_points(len(value))
            yield from self._elements(document, value, keys, end, context, label)
        elif isinstance(value, dict):
            yield from self._members(document, value, keys, context, label)
        else:
            raise StepFailed(f"{self.path.text}: {described(value)}, not an array or object")

    def _elements(self, document: Document, array: list[Any], keys: Sequence[str], end: int, context: Context,
                  label: str) -> Iterator[tuple[str, Document | StepFailed]]:
        is_last = end == len(keys) and (self.glob is None or self.glob.is_any)
        if end == len(keys) and not is_last:
            raise StepFailed(f"{'.'.join(keys)}: an array has no members {self.path.text}")
        for index, item in enumerate(array):
            name = f"{label}element {index + 1} of {'.'.join(keys[:end])}: "
            found = self.element.joined(document, item, keys[end - 1], index, is_last)
            if is_last or isinstance(found, StepFailed):
                yield name, found
                continue
            try:
                yield from self.messages(found, keys[end:], context, name)
            except NothingThere as error:
                yield name, StepFailed(f"{error}: missing")
            except StepFailed as error:
                yield name, error

    def _members(self, document: Document, value: Document, keys: Sequence[str], context: Context, label: str
                 ) -> Iterator[tuple[str, Document | StepFailed]]:
        """The members of an object, all or those that the last part of the path fits, as elements."""
        glob = self.glob
        names = [name for name in value if glob is None or glob.captures(name) is not None]
        # What is no object beside objects belongs to all of them: a name, a time.
        names = [name for name in names if isinstance(value[name], dict)] or names
        if not names:
            raise NothingThere(self.path.text)
        context.limits.check_points(len(names))
        members = [(name, value.pop(name)) for name in names]
        if keys and not value:
            take(document, keys)
        for name, item in members:
            yield f"{label}{name}: ", self.element.joined(document, item, keys[-1] if keys else "value", name, True)


def zip_arrays(step: ZipStep) -> ApplyMany:
    """`do = "zip"`."""
    pairs = new_paths(step.names)
    if len(pairs) < 2 and all(path.is_exact for path, _ in pairs):
        raise BadStep("names", "needs two arrays or more")

    def apply(document: Document, context: Context) -> Iterator[tuple[str, Document | StepFailed]]:
        found: dict[tuple[int, Any], tuple[Place, Sequence[str], str]] = {}
        for path, named in pairs:
            places = [place for place in path.places(document) if path.is_exact or isinstance(place.value, list)]
            if not places or places[0].value is None:
                raise NothingThere(path.text)
            if not isinstance(places[0].value, list):
                raise StepFailed(f"{path.text}: {described(places[0].value)}, not an array")
            for place in places:
                found.setdefault((id(place.holder), place.key), (
                    place, named(place.captures), path.text if path.is_exact else str(place.key)))
        arrays = [(keys, place.value) for place, keys, _ in found.values()]
        lengths = [len(array) for _, array in arrays]
        if len(set(lengths)) > 1:
            names = ", ".join([f"{name} {len(place.value)}" for place, _, name in found.values()])
            raise StepFailed(f"the arrays have different lengths: {names}")
        context.limits.check_points(lengths[0])
        remove([place for place, _, _ in found.values()])
        for index in range(lengths[0]):
            row: Document = copied(document)
            try:
                for keys, array in arrays:
                    put(row, keys, array[index])
            except StepFailed as error:
                yield f"row {index + 1}: ", error
                continue
            yield f"row {index + 1}: ", row

    return apply
