"""The type guard, where the types of all fields are those of a template."""

from collections.abc import Mapping

from pipeline.points.field_type import FieldType
from stages.mapping.records.type_guard import SlowPathNeeded, TypeGuard


def check_types(guard: TypeGuard, measurement: str, kinds: dict[str, FieldType], may_ask: bool) -> None:
    """Raises SlowPathNeeded where fields must become another type, or their types are not known and may not be asked
    for: messages before these are not written yet.
    """
    known: Mapping[str, FieldType] = guard.known(measurement)
    if any([lead not in known for lead in kinds]):
        if not may_ask:
            raise SlowPathNeeded
        known = guard.decided(measurement, kinds)
    if any([known[lead] != kind for lead, kind in kinds.items()]):
        raise SlowPathNeeded
