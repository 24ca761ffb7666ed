"""The time of a record from its own values: `timestamp_field`, in one of several keys and formats. Pure."""

from datetime import UTC
from typing import Final, NamedTuple

from pipeline.config.mapping_schema import EPOCH_FORMATS
from pipeline.config.schema import MappingConfig, Precision
from stages.mapping.records import timestamps
from stages.mapping.records.iso8601 import read_iso
from stages.mapping.records.number_times import gps_week_time
from stages.mapping.records.record import NOT_NUMBERS, Record, loads
from stages.mapping.records.time_formats import BadTimeFormat, TimeFormat, time_format
from stages.mapping.records.timestamps import UNIT_NS, BadTimestamp
from stages.mapping.reject import Reject, shown

#: JSON texts of what is no time.
_MISSING: Final = ("", "null", '""')


#: Digits of a date of ISO 8601 in its basic format.
_DATE_DIGITS: Final = 8


class Missing(NamedTuple):
    """Why a record has no time."""

    detail: str


class TimeField:
    """Reads the times of one mapping's records. Raises `BadTimeFormat` when it is made."""

    def __init__(self, config: MappingConfig, precision: Precision) -> None:
        self.paths = config.time_paths()
        self._rest_path = config.timestamp_rest_field if self.paths else ""
        self._formats = [time_format(form, config.timestamp_zone, config.timestamp_zone_names)
                         for form in config.time_formats()]
        self._rest_ns = UNIT_NS[config.timestamp_rest_unit]
        self._rest_is_big = config.timestamp_rest_unit == "s"
        #: Earliest time that counts, nanoseconds since 1970; None for all.
        self.not_before = moment_of(config.timestamp_not_before)
        #: Whether a value is all that a time depends on: the compiled ways read such times.
        self.is_single = not self._rest_path and not config.needs_own_time()
        #: The format of such times, if there is but one; otherwise "".
        self.only_format = self._formats[0].name if self.is_single and len(self._formats) == 1 else ""
        #: Nanoseconds of a unit, where times are whole numbers of it in most messages; 0 otherwise.
        self._plain_ns = UNIT_NS[self.only_format.removeprefix("epoch_")] if self.only_format in EPOCH_FORMATS else 0
        self._unit_ns = UNIT_NS[precision]

    def of(self, record: Record, near: int | None) -> int | Missing:
        """The time in the precision written. Raises Reject, "bad_timestamp".

        `near` is the message's own time, microseconds since 1970, for formats that depend on it.
        """
        why = f"{' and '.join(self.paths)}: no value"
        for path in self.paths:
            _, text = record.get(path, ("", ""))
            if text in _MISSING:
                continue
            _, rest = record.get(self._rest_path, ("", "")) if self._rest_path else ("", "")
            ns = self._read(path, text, rest, near)
            if self.not_before is None or ns >= self.not_before:
                return ns // self._unit_ns
            why = f"{path}: {shown(text)} is before timestamp_not_before"
        return Missing(why)

    def written(self, text: str) -> int:
        """The time of a value's JSON text, in the precision written. Raises Reject, which names the first key."""
        if self._plain_ns and text.isdigit() and len(text) < 20 and (
                ns := int(text) * self._plain_ns) <= timestamps.MAX_NS:
            return ns // self._unit_ns
        return self._read(self.paths[0], text, "", None) // self._unit_ns

    def ns_of_string(self, text: str) -> int | None:
        """The time of a JSON string without escapes, in nanoseconds; None where it is none."""
        if "\\" in text or text[:1] != '"' or text[-1:] != '"' or len(text) < 2:
            return None
        try:
            return self._found(text, "", None)
        except BadTimestamp:
            return None

    def _read(self, path: str, text: str, rest: str, near: int | None) -> int:
        if self._plain_ns and text.isdigit() and len(text) < 20 and (
                ns := int(text) * self._plain_ns) <= timestamps.MAX_NS:
            return ns
        try:
            return self._found(text, rest, near)
        except BadTimestamp as error:
            hint = timestamps.hint(_inner(text).strip()) if rest in _MISSING else ""
            raise Reject("bad_timestamp", f"{path}: {error}{hint}") from None

    def _found(self, text: str, rest: str, near: int | None) -> int:
        """Raises BadTimestamp with what the first format says."""
        first: BadTimestamp | None = None
        # A number of more than eight digits is no date.
        is_long = len(text) > _DATE_DIGITS and text.isdigit() and rest in _MISSING and len(self._formats) > 1
        for form in self._formats:
            if is_long and form.name in ("iso8601", "rfc3339"):
                continue
            try:
                return self._by(form, text, rest, near)
            except BadTimestamp as error:
                first = first or error
        others = len(self._formats) - 1
        more = f", and none of the {others} other formats fits" if others > 1 else (
            ", and the other format does not fit" if others else "")
        raise BadTimestamp(f"{first or f'not a string: {shown(text)}'}{more}")

    def _by(self, form: TimeFormat, text: str, rest: str, near: int | None) -> int:
        inner = _inner(text).strip()
        if not form.is_number:
            if text[0] != '"' and not text.isdigit():
                raise BadTimestamp(f"not a string: {shown(text)}")
            if text[0] != '"' and form.name == "rfc3339":
                raise BadTimestamp(f"not a string: {shown(text)}")
            return form.read(inner if rest in _MISSING else f"{inner} {_inner(rest).strip()}", near)
        if rest in _MISSING:
            if form.name == "gps_week" and self._rest_path:
                raise BadTimestamp(f"a week, and {self._rest_path} has no value")
            return form.read(inner, near)
        more = timestamps.scaled(_inner(rest).strip(), self._rest_ns)
        if form.name == "gps_week":
            return gps_week_time(inner, more, near)
        if not self._rest_is_big and not -UNIT_NS["s"] < more < UNIT_NS["s"]:
            raise BadTimestamp(f"{self._rest_path}: {shown(rest)} is not less than a second (timestamp_rest_unit)")
        if form.name.startswith("epoch_"):
            return timestamps.check_range(timestamps.parse_epoch(inner, "s") + more)
        return timestamps.check_range(form.read(inner, near) + more)


def _inner(text: str) -> str:
    """What a JSON string holds; the text of anything else."""
    return NOT_NUMBERS.get(text) or (str(loads(text)) if text[0] == '"' else text)


def moment_of(text: str) -> int | None:
    """Nanoseconds of `timestamp_not_before`; None for "". Raises BadTimeFormat."""
    if not text:
        return None
    try:
        return read_iso(text, UTC)
    except BadTimestamp:
        raise BadTimeFormat(f'"{text}" is not allowed; give a time such as "2020-01-01T00:00:00Z", or a date',
                            "timestamp_not_before") from None
