"""The encoder's side of the type guard: fields get the type that was decided for them, or their message is rejected.

Decisions are made in one place for all encoders (`pipeline.fields.types`); here they are asked for, and remembered.
"""

from collections.abc import Callable, Mapping
from typing import Final

from pipeline.points.field_type import FieldType
from stages.mapping.budget import Budget, cost_of
from stages.mapping.records.values import I64, U64, BadValue, exact_integer
from stages.mapping.reject import Reject, shown

#: (measurement, field -> type a message has) -> the types decided.
Ask = Callable[[str, Mapping[str, FieldType]], Mapping[str, FieldType]]

#: The dict of a measurement's fields, bytes.
_MEASUREMENT_BYTES: Final = 300
#: The last character of a line protocol value -> its type; any other is a float's digit.
_KINDS: Final[dict[str, FieldType]] = {'"': "string", "i": "integer", "u": "unsigned", "e": "boolean"}


class SlowPathNeeded(Exception):
    """Messages of this shape and measurement need a conversion: they go by the rules."""


def kind_of(value: str) -> FieldType:
    """The type of a line protocol value as this package writes them."""
    return _KINDS.get(value[-1], "float")


class TypeGuard:
    """What this encoder knows of the types of one space. Not thread-safe."""

    def __init__(self, ask: Ask, budget: Budget | None = None) -> None:
        """`budget`: of the process; one of its own without."""
        self._ask = ask
        self._known: dict[str, dict[str, FieldType]] = {}
        self._share = (budget or Budget()).share(self._known.clear)

    def known(self, measurement: str) -> Mapping[str, FieldType]:
        """The types of a measurement's fields that were asked for before, by `key=`."""
        return self._known.get(measurement, {})

    def decided(self, measurement: str, kinds: Mapping[str, FieldType]) -> dict[str, FieldType]:
        """The types decided for at least the fields in `kinds` (by `key=`); asks for those that are not known."""
        known = self._known.get(measurement)
        if known is None:
            known = {}
            if self._share.takes(_MEASUREMENT_BYTES + cost_of(measurement)):
                self._known[measurement] = known
        unknown = {lead[:-1]: kind for lead, kind in kinds.items() if lead not in known}
        if unknown:
            told = self._ask(measurement, unknown)
            if not self._share.takes(sum(map(cost_of, told))):
                self._known.pop(measurement, None)
            for field, kind in told.items():
                known[f"{field}="] = kind
        return known

    def converted(self, measurement: str, fields: dict[str, str],
                  left_out: list[str] | None = None) -> dict[str, str]:
        """The fields with the types decided.

        A field whose value cannot have its type is left out, and why is added to `left_out`; without that list, it
        raises Reject, "type_conflict".
        """
        known = self._known.get(measurement)
        wrong = known is None
        if known is not None:
            for lead, value in fields.items():
                if known.get(lead) != _KINDS.get(value[-1], "float"):
                    wrong = True
                    break
        if not wrong:
            return fields
        known = self.decided(measurement, {lead: kind_of(value) for lead, value in fields.items()})
        out = {}
        for lead, value in fields.items():
            try:
                out[lead] = value if known[lead] == kind_of(value) else converted(lead, value, known[lead])
            except Reject as reject:
                if left_out is None:
                    raise
                left_out.append(reject.detail)
        return out


def converted(lead: str, value: str, kind: FieldType) -> str:
    """A number as another type of number, where that loses nothing. Raises Reject, "type_conflict", where it does."""
    has = kind_of(value)
    number = value[:-1] if has in ("integer", "unsigned") else value
    if has not in ("string", "boolean") and kind not in ("string", "boolean"):
        if kind == "float":
            return number
        try:
            whole = exact_integer(number)
        except BadValue:
            whole = None
        if whole is not None and whole in (I64 if kind == "integer" else U64):
            return f"{whole}{kind[0]}"
    raise Reject("type_conflict", f"{lead}{shown(value)} is {has}, and the field has been {kind} before")
