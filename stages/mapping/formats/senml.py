"""`format = "senml"`: an object for each base name and time of a pack. Source: RFC 8428, as JSON and as CBOR.

Each object has a key for each record's name, with its value, and `NAME_sum` for its sum; "value" and "sum" where the
name is that of the base alone. Beside them stand `_name`, the base name, `_time`, seconds since 1970 or, below 2^28,
relative to the message (`timestamp_format = "senml"`), and `_units`, the units by name. Data (`vd`) stays Base64 text.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from stages.mapping.formats import Transcoder
from stages.mapping.formats.decoded import json_value, object_text
from stages.mapping.limits import Limits
from stages.mapping.reject import Reject, shown

#: Latest version of SenML that is known (`bver`).
_VERSION: Final = 10
_VALUES: Final = ("v", "vs", "vb", "vd")
#: Labels of CBOR. Source: RFC 8428, table 6.
_CBOR: Final = {-1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs", 0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb",
                5: "s", 6: "t", 7: "ut", 8: "vd"}
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(("bn", "bu", "n", "u", "vs"), (str,)), "vd": (str, bytes), "vb": (bool,),
    **dict.fromkeys(("bt", "bv", "bs", "v", "s", "t", "ut", "bver"), (int, float, Decimal))}


def senml_transcoder(limits: Limits) -> Transcoder:
    """The transcoder: yields an object for each base name and time, and a Reject for each record that is wrong."""
    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        pack = _pack(payload, limits)
        limits.check_points(len(pack))
        base: dict[str, Any] = {}
        found: list[_Point] = []
        at: dict[tuple[str, Decimal], _Point] = {}
        bad: list[tuple[str, Reject]] = []
        for number, record in enumerate(pack, 1):
            try:
                resolved = _resolved(record, base)
            except Reject as reject:
                bad.append((f"record {number}: ", reject))
                continue
            if resolved is None:
                continue
            name, time, members, unit = resolved
            point = at.get((name, time))
            if point is None or not members.keys().isdisjoint(point.members):
                point = at[name, time] = _Point(name, time)
                found.append(point)
            point.add(members, unit)
        for point in found:
            yield "", object_text(point.members, limits)
        yield from bad

    return objects


class _Point:
    """The records of one base name and time."""

    def __init__(self, name: str, time: Decimal) -> None:
        self.members: dict[str, Any] = {"_name": name} if name else {}
        if time:
            self.members["_time"] = time
        self._units: dict[str, str] = {}

    def add(self, members: dict[str, Any], unit: str) -> None:
        """Adds a record's values, and its unit."""
        self.members |= members
        if unit:
            self._units |= dict.fromkeys(members, unit)
            self.members["_units"] = self._units


def _pack(payload: bytes, limits: Limits) -> list[Any]:
    """The records of a payload. Raises Reject."""
    first = payload.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")[:1]
    if first in (b"[", b"{"):
        pack = json_value(payload, "not_senml", limits)
    elif first and first[0] >= 0x80:
        from stages.mapping.formats.cbor import cbor_value

        pack = cbor_value(payload, "not_senml", limits)
    else:
        raise Reject("not_senml", "it is neither a JSON array nor a CBOR array")
    if isinstance(pack, dict):
        pack = [pack]
    if not isinstance(pack, list):
        raise Reject("not_senml", "it is no array of records")
    return pack


def _resolved(record: Any, base: dict[str, Any]) -> tuple[str, Decimal, dict[str, Any], str] | None:
    """Base name, time, values by name, and unit of a record; None if it has only base values, which go to `base`.

    Raises Reject.
    """
    if not isinstance(record, dict):
        raise Reject("not_senml", "a record is an object")
    fields: dict[str, Any] = {}
    for key, value in record.items():
        label = _CBOR.get(key, str(key)) if isinstance(key, int) else str(key)
        fields[label] = value
        kinds = _TYPES.get(label)
        if kinds is None:
            if label.endswith("_"):
                raise Reject("not_senml", f"the label {shown(label)} must be understood, and is not known")
        elif not isinstance(value, kinds) or isinstance(value, bool) != (bool in kinds):
            raise Reject("not_senml", f"{label}: {shown(str(value))} is of another type")
    if fields.get("bver", _VERSION) > _VERSION:
        raise Reject("not_senml", f"bver: version {fields['bver']} is not known")
    base.update({label: fields[label] for label in ("bn", "bt", "bu", "bv", "bs") if label in fields})
    given = [label for label in _VALUES if label in fields]
    if len(given) > 1:
        raise Reject("not_senml", f"it has several values: {', '.join(given)}")
    if not given and "s" not in fields:
        return None
    name = fields.get("n", "")
    members: dict[str, Any] = {}
    for label in given:
        members[name or "value"] = _sum(base.get("bv", 0), fields[label]) if label == "v" else fields[label]
    if "s" in fields:
        members[f"{name}_sum" if name else "sum"] = _sum(base.get("bs", 0), fields["s"])
    return (base.get("bn", ""), _decimal(base.get("bt", 0)) + _decimal(fields.get("t", 0)), members,
            fields.get("u", base.get("bu", "")))


def _sum(base: Any, value: Any) -> Any:
    return value if not base else _decimal(base) + _decimal(value)


def _decimal(number: Any) -> Decimal:
    """A number that was written as a decimal. Raises Reject for NaN and infinities."""
    found = number if isinstance(number, Decimal) else Decimal(repr(number) if isinstance(number, float) else number)
    if not found.is_finite() or abs(found.adjusted()) > 400:
        raise Reject("not_senml", f"{shown(str(number))} is no number that can be added to another")
    return found
