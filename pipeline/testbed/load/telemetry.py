"""Telemetry as a fleet of devices sends it: two tags, some fields and a time, in a form that a mapping reads. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Final

from msgspec import Struct

from pipeline.config.mapping_schema import EPOCH_FORMATS
from pipeline.config.schema import MappingConfig
from pipeline.testbed.load.encodings import Csv, Encoding, Json, Lines, MessagePack, Text
from pipeline.testbed.load.schemas import by_schema
from pipeline.testbed.load.slots import Slot, slots_of
from stages.mapping.formats.compression import compressor
from stages.mapping.records.timestamps import to_precision
from stages.mapping.records.zones import zone_of

#: Values of the tag `site`.
SITES: Final = 5
#: A number is one of so many hundredths from 10.00 on, `NN.NN`.
_VALUES: Final = 8_000
_LEAST: Final = 1_000
#: Values of other kinds: integers of two digits, booleans, texts.
_OTHERS: Final = 80
#: Names of devices that are remembered, at most.
_MAX_DEVICES: Final = 100_000
#: Texts of string fields.
_STATES: Final = ("idle", "busy", "down", "left")
#: Key of the text that a message is filled with.
NOTE: Final = "note"
#: Formats whose payloads have no room for a note.
_WITHOUT_NOTE: Final = ("avro", "protobuf")


#: Formats that messages are made in.
MADE_FORMATS: Final = ("json", "ndjson", "msgpack", "csv", "line_protocol", "text", "avro", "protobuf")
#: Options of mappings for messages of other shapes than those that are made here.
_NOT_MADE: Final = ("steps", "jq", "transform", "schema_header", "csv_skip_lines", "csv_skip_after_names",
                    "csv_decimal", "csv_encoding")


class TimeForm(Struct, frozen=True):
    """How a message has its time."""

    #: Path of its value.
    field: str = "ts"
    #: As `mapping.timestamp_format` has it.
    format: str = "epoch_us"
    #: As `mapping.timestamp_zone` has it.
    zone: str = "UTC"

    def writer(self) -> Callable[[int], int | str]:
        """Turns microseconds since 1970 into a number, or a text."""
        if self.format in EPOCH_FORMATS:
            precision = self.format.removeprefix("epoch_")
            return lambda time_us: to_precision(time_us * 1_000, precision)
        zone = zone_of(self.zone)
        return lambda time_us: _text(time_us, self.format, zone)


DEFAULT_TIME: Final = TimeForm()
DEFAULT_MAPPING: Final = MappingConfig()


def _text(time_us: int, form: str, zone: tzinfo) -> str:
    time = datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)
    if form in ("rfc3339", "iso8601"):
        return time.isoformat(timespec="microseconds")
    return time.strftime(form) if "%Z" in form else time.astimezone(zone).strftime(form)


class Values(Struct):
    """The values of one message."""

    site: str
    device: str
    #: In the message's form.
    time: int | str
    #: Changes with every `hundredths`.
    state: int

    def hundredths(self) -> int:
        """The next number, in hundredths: from 10.00 to 89.99."""
        self.state = (self.state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        return _LEAST + (self.state >> 8) % _VALUES


class Telemetry:
    """Makes messages of one form. Message `n` comes from series `n % series`."""

    def __init__(self, series: int, fields: int, size: int, time: TimeForm = DEFAULT_TIME,
                 mapping: MappingConfig = DEFAULT_MAPPING) -> None:
        """`size` is the length of a message in bytes, before it is compressed: what fields and time leave of it is
        filled with a text.

        Raises ValueError when that is nothing or can't be, when there is no series or no field, and when no message can
        be made for the mapping; `BadFormat` where a package for its format is not there.
        """
        if series < 1 or fields < 1:
            raise ValueError("there must be a series and a field")
        if mapping.format not in MADE_FORMATS:
            raise ValueError(f"messages of format = \"{mapping.format}\" cannot be made; give another one")
        for option in _NOT_MADE:
            if getattr(mapping, option) != getattr(DEFAULT_MAPPING, option):
                raise ValueError(f"messages for a mapping with {option} cannot be made; give one without")
        self.series = series
        self._time = time.writer()
        self._compress = compressor(mapping.compression)
        self._slots = slots_of(mapping, time.field, fields)
        self._encoding = _encoding(mapping)
        self._schema = by_schema(mapping, self._slots)
        self._sites = [f"site-{number}" for number in range(SITES)]
        #: Every number that there is, as it stands in a payload, by its hundredths less the least.
        self._numbers = [self._encoding.number(_LEAST + number) for number in range(_VALUES)]
        #: The same of other kinds.
        self._others = {"integer": [self._encoding.integer(10 + number) for number in range(_OTHERS)],
                        "boolean": [self._encoding.boolean(number % 2 == 0) for number in range(_OTHERS)],
                        "text": [self._encoding.text(_STATES[number % len(_STATES)]) for number in range(_OTHERS)]}
        self._site_texts = [self._encoding.text(site) for site in self._sites]
        self._device_texts: dict[int, bytes] = {}
        self._fill("")
        if size:
            if mapping.format in _WITHOUT_NOTE or mapping.format == "csv" and mapping.csv_header:
                raise ValueError(f"messages of format = \"{mapping.format}\" have the size that their schema or header "
                                 "gives; leave --size out")
            self._fill("x")
            shortest = len(self._payload(0, 1_700_000_000_000_000))
            if size < shortest:
                raise ValueError(f"{fields} fields make messages of at least {shortest} bytes")
            self._fill_up(size, shortest)

    def _fill(self, note: str) -> None:
        """Makes the template, with a note where there is one."""
        slots = [*self._slots, Slot(NOTE, "constant", note)] if note else self._slots
        template, order = self._encoding.template(slots)
        self._template, self._order = template, [slot.kind for slot in order]

    def _fill_up(self, size: int, shortest: int) -> None:
        """Finds the note for a size: its length may need bytes of its own."""
        for length in range(size - shortest + 1, max(0, size - shortest - 8), -1):
            self._fill("x" * length)
            if len(self._payload(0, 1_700_000_000_000_000)) <= size:
                return

    def message(self, number: int, time_us: int) -> bytes:
        """Message `number`; `time_us` is its time in microseconds since 1970."""
        return self._compress(self._payload(number, time_us))

    def _payload(self, number: int, time_us: int) -> bytes:
        device, state = number % self.series, number * 2_654_435_761
        if self._schema is not None:
            return self._schema(Values(self._sites[device % SITES], _device(device), self._time(time_us), state))
        out = []
        for kind in self._order:
            if kind == "number":
                state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
                out.append(self._numbers[(state >> 8) % _VALUES])
            elif kind == "site":
                out.append(self._site_texts[device % SITES])
            elif kind == "device":
                out.append(self._device_text(device))
            elif kind == "time":
                out.append(self._encoding.time(self._time(time_us)))
            else:
                state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
                out.append(self._others[kind][(state >> 8) % _OTHERS])
        return self._template % tuple(out)

    def _device_text(self, device: int) -> bytes:
        found = self._device_texts.get(device)
        if found is None:
            found = self._encoding.text(_device(device))
            if len(self._device_texts) < _MAX_DEVICES:
                self._device_texts[device] = found
        return found


def _device(number: int) -> str:
    return f"dev-{number:06d}"


def _encoding(mapping: MappingConfig) -> Encoding:
    match mapping.format:
        case "msgpack":
            return MessagePack()
        case "csv":
            return Csv(mapping.csv_header, mapping.csv_delimiter)
        case "line_protocol":
            return Lines()
        case "text":
            return Text()
        case _:
            return Json()
