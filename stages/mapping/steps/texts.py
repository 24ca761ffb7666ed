"""Verbs that take parts of a text as keys: split, match."""

from collections.abc import Callable, Sequence
from typing import Final

from pipeline.config.steps_schema import MatchStep, SplitStep
from stages.mapping.records.text_patterns import BadPattern, regular_expression
from stages.mapping.reject import shown
from stages.mapping.steps.context import Context, described, source, target, text_of
from stages.mapping.steps.errors import BadStep, NothingThere, StepFailed
from stages.mapping.steps.paths import MISSING, Document, put
from stages.mapping.steps.values import Apply

#: In `to`: any number of parts.
REST: Final = "..."
#: Texts of which the groups are remembered, and their length, at most: topics and devices come again and again.
_KNOWN_TEXTS, _KNOWN_CHARS = 2_000, 200

def _text_at(name: str) -> Callable[[Document, Context], str]:
    get = source(name)

    def text(document: Document, context: Context) -> str:
        value = get(document, context)
        if value is MISSING or value is None:
            raise NothingThere(name)
        found = text_of(value)
        if found is None:
            raise StepFailed(f"{name}: {described(value)}, not a text")
        return found

    return text


def split(step: SplitStep) -> Apply:
    """`do = "split"`."""
    if step.to.count(REST) > 1:
        raise BadStep("to", f'has "{REST}" twice')
    if not any(name not in ("", REST) for name in step.to):
        raise BadStep("to", "names no part")
    text = _text_at(step.from_)
    names = list(step.to)
    at = names.index(REST) if REST in names else -1
    keys = [() if name == REST else target(name) for name in names]
    if len({key for key in keys if key}) < sum(map(bool, keys)):
        raise BadStep("to", "has a path twice")
    count = len(keys) - (at >= 0)

    def apply(document: Document, context: Context) -> Document:
        whole = text(document, context)
        parts = whole.split(step.separator)
        if len(parts) != count and (at < 0 or len(parts) < count):
            raise StepFailed(f'{step.from_}: {described(whole)} has {len(parts)} parts by "{step.separator}", and '
                             f"`to` takes {count}" + (" or more" if at >= 0 else ""))
        rest = len(parts) - count
        for index, key in enumerate(keys):
            if key:
                put(document, key, parts[index if at < 0 or index < at else index + rest - 1])
        return document

    return apply


def match(step: MatchStep) -> Apply:
    """`do = "match"`."""
    try:
        pattern = regular_expression(step.pattern)
    except BadPattern as error:
        raise BadStep("pattern", str(error)) from None
    groups: Sequence[str] = list(pattern.groupindex)
    if not groups:
        raise BadStep("pattern", "has no named group, such as (?P<site>[^/]+)")
    text = _text_at(step.from_)
    prefix = target(step.to)

    known: dict[str, list[tuple[tuple[str, ...], str]] | None] = {}

    def parts_of(whole: str) -> list[tuple[tuple[str, ...], str]] | None:
        if whole in known:
            return known[whole]
        found = pattern.search(whole)
        parts = None if found is None else [((*prefix, name), part) for name in groups
                                            if (part := found.group(name)) is not None]
        if len(whole) <= _KNOWN_CHARS:
            if len(known) >= _KNOWN_TEXTS:
                known.clear()
            known[whole] = parts
        return parts

    def apply(document: Document, context: Context) -> Document:
        whole = text(document, context)
        parts = parts_of(whole)
        if parts is None:
            raise StepFailed(f"{step.from_}: {described(whole)} does not match {shown(step.pattern)}")
        for keys, part in parts:
            put(document, keys, part)
        return document

    return apply
