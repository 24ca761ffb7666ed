"""Conditions of steps: those of `[[mapping.rules]]` on a decoded message, with `topic()`, `value()` and the like."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from pipeline.config.steps_schema import METADATA_IN_CONDITION
from stages.mapping.records.conditions import BadCondition, compile_condition, paths_of
from stages.mapping.steps.context import Context, Source, is_metadata, source
from stages.mapping.steps.errors import BadStep
from stages.mapping.steps.paths import MISSING, Document

#: (message, context, `value()`) -> whether the condition holds.
Holds = Callable[[Document, Context, Any], bool]
VALUE: Final = "value()"


def condition(text: str, has_value: bool = False) -> Holds:
    """The condition in `text`. `value()` is known if it `has_value`. Raises BadStep."""
    quoted = METADATA_IN_CONDITION.sub(lambda match: match[1] or f"`{match[2]}`", text)
    sources: dict[str, Source] = {}
    try:
        holds = compile_condition(quoted)
        paths = paths_of(quoted)
    except BadCondition as error:
        raise BadStep("when", str(error)) from None
    for path in paths:
        if path != VALUE or not has_value:
            sources[path] = source(path if is_metadata(path) else _escaped(path), "when")

    def apply(document: Document, context: Context, value: Any) -> bool:
        def look_up(path: str) -> Any:
            found = sources[path](document, context) if path in sources else value
            return _plain(found)

        return holds(look_up)

    return apply


def _escaped(path: str) -> str:
    return re.sub(r"([*?\\])", r"\\\1", path)


def _plain(value: Any) -> Any:
    """A value as conditions compare it."""
    if value is MISSING:
        return None
    return float(value) if isinstance(value, Decimal) else value
