"""Verbs that change which keys a message has: unwrap, include, exclude, rename, copy, move, set, pivot, drop."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from string import Formatter
from typing import Any, Final

from pipeline.config.steps_schema import (
    CopyStep,
    DropStep,
    ExcludeStep,
    IncludeStep,
    MoveStep,
    PivotStep,
    RenameStep,
    SetStep,
    UnwrapStep,
    listed,
)
from stages.mapping.reject import shown
from stages.mapping.steps.conditions import VALUE, condition
from stages.mapping.steps.context import Context, described, exact_path, path_of, source, target, text_of
from stages.mapping.steps.errors import BadPath, BadStep, NothingThere, StepFailed
from stages.mapping.steps.paths import MISSING, Document, Kept, Path, Place, check_free, merge, new_names, put, remove
from stages.mapping.steps.values import Apply, constant

#: A path of one part without wildcards.
_PLAIN: Final = re.compile(r"[^.*?\\]+")


def unwrap(step: UnwrapStep) -> Apply:
    """`do = "unwrap"`."""
    path = exact_path(step.path)
    pick = _picker([path_of(text, "keep") for text in step.keep])

    def apply(document: Document, context: Context) -> Document:
        inner = path.get(document)
        if inner is MISSING or inner is None:
            raise NothingThere(step.path)
        if not isinstance(inner, dict):
            hint = "; parse it in a step before this one" if isinstance(inner, str) else "; explode it" \
                if isinstance(inner, list) else ""
            raise StepFailed(f"{step.path}: {described(inner)}, not an object{hint}")
        if path.is_flat:
            del document[path.keys[0]]
        else:
            path.take(document)
        outer = pick(document)
        merge(outer, inner)
        return outer

    return apply


def include(step: IncludeStep) -> Apply:
    """`do = "include"`."""
    paths = [path_of(path) for path in listed(step.path)]
    pick = _picker(paths)
    return lambda document, context: pick(document)


def _picker(paths: Sequence[Path]) -> Callable[[Document], Document]:
    """Gives the part of a message that some paths name."""
    if all(path.is_flat for path in paths):
        names = frozenset([path.keys[0] for path in paths])
        return lambda document: {key: value for key, value in document.items() if key in names}
    return Kept(paths)


def exclude(step: ExcludeStep) -> Apply:
    """`do = "exclude"`."""
    paths = [path_of(path) for path in listed(step.path)]
    holds = condition(step.when, has_value=True) if step.when else None
    by_value = VALUE in step.when

    def apply(document: Document, context: Context) -> Document:
        if holds is not None and not by_value and not holds(document, context, None):
            return document
        for path in paths:
            places = path.places(document)
            if holds is not None and by_value:
                places = [place for place in places if holds(document, context, place.value)]
            if places:
                remove(places)
        return document

    return apply


def drop(step: DropStep) -> Apply:
    """`do = "drop"`."""
    holds = condition(step.when)
    return lambda document, context: None if holds(document, context, None) else document


def rename(step: RenameStep) -> Apply:
    """`do = "rename"`."""
    names = new_paths(step.names)

    if step.on_missing == "skip" and (flat := _flat(step.names)):
        def apply_flat(document: Document, context: Context) -> Document:
            for old, new in flat:
                if old in document:
                    value = document.pop(old)
                    if new in document:
                        check_free(document, new, value)
                    document[new] = value
            return document

        return apply_flat

    def apply(document: Document, context: Context) -> Document:
        found: dict[tuple[int, Any], tuple[Place, Any, Sequence[str]]] = {}
        for path, named in names:
            places = path.places(document)
            if not places and step.on_missing != "skip":
                raise NothingThere(path.text)
            for place in places:
                found.setdefault((id(place.holder), place.key), (place, place.value, named(place.captures)))
        if found:
            remove([place for place, _, _ in found.values()])
            for _, value, keys in found.values():
                put(document, keys, value)
        return document

    return apply


def new_paths(names: Mapping[str, str]) -> list[tuple[Path, Callable[[Sequence[str]], Sequence[str]]]]:
    """Old paths, and what makes the keys of the new ones. Raises BadStep."""
    if not names:
        raise BadStep("names", "is empty")
    found = []
    for old, new in names.items():
        path = path_of(old, "names")
        try:
            found.append((path, new_names(path, new)))
        except BadPath as error:
            raise BadStep("names", f'"{new}" {error}') from None
    return found


def _flat(names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Old and new keys where all are at the outermost level, without wildcards, and in no other's way."""
    plain = all(_PLAIN.fullmatch(name) for pair in names.items() for name in pair)
    apart = not set(names) & set(names.values()) and len(set(names.values())) == len(names)
    return list(names.items()) if plain and apart else []


def copy(step: CopyStep) -> Apply:
    """`do = "copy"`."""
    sources = [source(name) for name in listed(step.from_)]
    keys = target(step.to)

    def apply(document: Document, context: Context) -> Document:
        for get in sources:
            value = get(document, context)
            if value is not MISSING and value is not None:
                put(document, keys, copied(value))
                return document
        if step.on_missing != "skip":
            raise NothingThere(", ".join(listed(step.from_)))
        return document

    return apply


def copied(value: Any) -> Any:
    """A copy of a value, so that a change of one is none of the other."""
    if isinstance(value, dict):
        return {key: copied(member) for key, member in value.items()}
    return [copied(element) for element in value] if isinstance(value, list) else value


def move(step: MoveStep) -> Apply:
    """`do = "move"`."""
    paths = [exact_path(path, "from") for path in listed(step.from_)]
    keys = target(step.to)

    def apply(document: Document, context: Context) -> Document:
        value = _first(document, paths, take=True)
        if value is not None:
            put(document, keys, value)
        elif step.on_missing != "skip":
            raise NothingThere(", ".join(listed(step.from_)))
        return document

    return apply


def _first(document: Document, paths: Iterable[Path], take: bool = False) -> Any:
    """The first value that is not null; None if there is none. All of them are taken out if asked."""
    first = None
    for path in paths:
        value = path.take(document) if take else path.get(document)
        if first is None and value is not MISSING:
            first = value
    return first


def put_constant(step: SetStep) -> Apply:
    """`do = "set"`."""
    if (step.value is None) == (not step.template):
        raise BadStep("value", "give either value or template")
    path = exact_path(step.to, "to")
    value = constant(step.value, "value")
    filled = _template(step.template)

    def apply(document: Document, context: Context) -> Document:
        if not step.if_missing or path.get(document) in (MISSING, None):
            put(document, path.keys, filled(document, context) if filled is not None else value, replace=True)
        return document

    return apply


def _template(text: str) -> Callable[[Document, Context], str] | None:
    """Fills a template. The function raises NothingThere and StepFailed. Raises BadStep."""
    if not text:
        return None
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise BadStep("template", str(error)) from None
    if any(form or conversion for _, _, form, conversion in parsed):
        raise BadStep("template", "give a path in each pair of braces, and nothing else")
    pieces = [(literal, name, None if name is None else source(name, "template")) for literal, name, _, _ in parsed]

    def filled(document: Document, context: Context) -> str:
        out = []
        for literal, name, get in pieces:
            out.append(literal)
            if get is None:
                continue
            value = get(document, context)
            if value is MISSING or value is None:
                raise NothingThere(str(name))
            found = text_of(value)
            if found is None:
                raise StepFailed(f"{name}: {described(value)}, not a single value")
            out.append(found)
        return "".join(out)

    return filled


def pivot(step: PivotStep) -> Apply:
    """`do = "pivot"`."""
    path = exact_path(step.path) if step.path else None
    pivoted = _Pivoted(step)

    def apply(document: Document, context: Context) -> Document:
        if path is None:
            pairs = list(pivoted.pairs(document))
        else:
            items = path.get(document)
            if items is MISSING or items is None:
                raise NothingThere(step.path)
            if not isinstance(items, dict | list):
                raise StepFailed(f"{step.path}: {described(items)}, not an object or array")
            pairs = []
            for number, item in enumerate(items if isinstance(items, list) else [items], 1):
                if not isinstance(item, dict):
                    raise StepFailed(f"element {number} of {step.path}: {described(item)}, not an object")
                pairs += pivoted.pairs(item)
            path.take(document)
        for name, value in pairs:
            put(document, (*pivoted.keys, name), value)
        return document

    return apply


class _Pivoted:
    """Takes names and values out of an object."""

    def __init__(self, step: PivotStep) -> None:
        self._name = exact_path(step.name, "name")
        self._values = [exact_path(value, "value") for value in listed(step.value)]
        self.keys = target(step.to)

    def pairs(self, item: Document) -> list[tuple[str, Any]]:
        """The names with their values. Raises NothingThere without a name; a value that is null is left out."""
        name = self._name.take(item)
        value = _first(item, self._values, take=True)
        if name is MISSING or name is None:
            raise NothingThere(self._name.text)
        if isinstance(name, list):
            if not isinstance(value, list) or len(value) != len(name):
                count = f"{len(value)} values" if isinstance(value, list) else described(value)
                raise StepFailed(f"{self._name.text}: {len(name)} names for {count}")
            return [(self._text(one), each) for one, each in zip(name, value, strict=True) if each is not None]
        return [] if value is None else [(self._text(name), value)]

    def _text(self, name: Any) -> str:
        text = text_of(name)
        if not text:
            raise StepFailed(f"{self._name.text}: {described(name)} is no name")
        return shown(text) if len(text) > 65_535 else text
