"""The parts of `[mapping]` that describe payloads and times, as bases of `pipeline.config.schema.MappingConfig`."""

import re
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from pipeline.config.scalars import FilePath, NonEmpty
from pipeline.points.field_type import FieldType

Precision = Literal["ns", "us", "ms", "s"]
#: Values of `mapping.timestamp_format` for numbers since 1970.
EPOCH_FORMATS: Final = ("epoch_ns", "epoch_us", "epoch_ms", "epoch_s")
#: Those for numbers in other scales.
OTHER_NUMBER_FORMATS: Final = ("epoch_auto", "filetime", "dotnet_ticks", "ole_date", "gps_s", "gps_ms", "gps_week",
                               "senml")
#: Those for texts; anything else is a strptime format, with a `%`.
TEXT_FORMATS: Final = ("rfc3339", "iso8601", "rfc3164", "rfc2822", "dotnet_date")
_HEADER: Final = re.compile(r"header\(\s*['\"]([^'\"\\]+)['\"]\s*\)")
#: A type in `mapping.types`: one of a field; "json", for a string that holds the value as JSON; or "number", for texts
#: of which those that look like a number are one.
DeclaredType = Literal[FieldType, "json", "number"]


class PayloadConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of `[mapping]` for the format of the payloads."""

    #: A mapping for a well-known format or device, such as "senml" or "cloudevents": its keys apply where
    #: this table does not have them. docs/reference/presets.rst lists them.
    preset: str = ""
    #: Format of the payloads. Each is converted to JSON objects, which are then mapped; line protocol passes through.
    format: Literal["json", "ndjson", "msgpack", "cbor", "line_protocol", "text", "csv", "avro", "protobuf", "senml",
                    "opentelemetry", "prometheus", "sparkplug"] = "json"
    #: Field key of the payload's text, with format = "text".
    text_field: NonEmpty = "message"
    #: Column names, with format = "csv"; empty: the first line of each payload has them.
    csv_header: tuple[str, ...] = ()
    #: Character between cells, with format = "csv".
    csv_delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    #: Encoding of the payloads, with format = "csv".
    csv_encoding: Literal["utf-8", "utf-16", "windows-1252"] = "utf-8"
    #: Remove white space around names and cells, with format = "csv".
    csv_trim: bool = False
    #: Lines that begin with this text are left out, with format = "csv": "#".
    csv_comment: str = ""
    #: Lines at the beginning of each payload that are left out, with format = "csv".
    csv_skip_lines: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    #: Lines that are left out after that with the names, such as units, with format = "csv".
    csv_skip_after_names: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    #: Character before the decimals of a number, with format = "csv".
    csv_decimal: Literal[".", ","] = "."
    #: Cells that stand for no value, beside empty ones, with format = "csv": ["NAN", "---"].
    csv_none: tuple[str, ...] = ()
    #: Character around cells that hold delimiters or line breaks, with format = "csv"; "": none.
    csv_quote: Annotated[str, Meta(max_length=1)] = '"'
    #: File of the schema (JSON), with format = "avro"; without it, payloads are object container files.
    avro_schema: FilePath = ""
    #: File of a FileDescriptorSet (`protoc --descriptor_set_out --include_imports`), with format = "protobuf".
    protobuf_descriptor: FilePath = ""
    #: Full name of the message in it, such as "telemetry.Reading".
    protobuf_message: str = ""
    #: "confluent": each payload begins with the header of Confluent's serializers (a zero byte and a schema id), with
    #: format = "avro", "protobuf" or "json".
    schema_header: Literal["none", "confluent"] = "none"
    #: Folder with the schemas that the headers name: 17.avsc (JSON), or 17.desc (a FileDescriptorSet), for schema 17.
    #: Without it, the id is skipped, and `avro_schema` or `protobuf_descriptor` is the schema of all payloads.
    schema_folder: FilePath = ""
    #: Where the MQTT topic of a message stands, with format = "sparkplug": `header('NAME')`, or `topic()`.
    sparkplug_topic: str = "header('mqtt-topic')"
    #: Folder in which the births of nodes and devices are kept, with format = "sparkplug": for all encoders, and for
    #: the next start. Without it, each encoder only knows those that it has read itself.
    sparkplug_births: FilePath = ""
    #: Unit of the times in the payloads, with format = "line_protocol".
    line_protocol_precision: Precision = "ns"
    #: Compression of the payloads; "auto" detects gzip, zstd, lz4 and snappy frames by their first bytes.
    compression: Literal["none", "auto", "gzip", "zstd", "lz4", "snappy"] = "none"
    #: Largest payload after decompression; a larger one is rejected.
    max_payload_bytes: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 10_000_000


    def sparkplug_header(self) -> str:
        """The header that has the MQTT topic; "" if it is not in a header."""
        match = _HEADER.fullmatch(self.sparkplug_topic.strip())
        return match[1] if match is not None and self.format == "sparkplug" else ""


class TimeConfig(PayloadConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of `[mapping]` for the time of a point."""

    #: The time of a point: "iggy_timestamp": when the server received the message; "origin_timestamp": when its
    #: producer made it, by the producer's clock; "arrival": when it was read; "field": `timestamp_field`. At precision
    #: "ns", times that are not from a field are made distinct by the messages' places in the log.
    timestamp_from: Literal["field", "iggy_timestamp", "origin_timestamp", "arrival"] = "iggy_timestamp"
    #: Path of the time, with timestamp_from = "field"; or several: the first one that has a time counts.
    timestamp_field: str | tuple[NonEmpty, ...] = ""
    #: Format of `timestamp_field`: epoch_ns, epoch_us, epoch_ms, epoch_s, epoch_auto (the unit by the size of the
    #: number), rfc3339, iso8601, rfc3164, rfc2822, dotnet_date, dotnet_ticks, filetime, ole_date, gps_s, gps_ms,
    #: gps_week, senml, or a strptime format such as "%d/%m/%Y %H:%M:%S"; or several, of which the first that a time
    #: fits counts.
    timestamp_format: str | tuple[NonEmpty, ...] = "epoch_ms"
    #: Path of the rest of a time that stands in two keys. Beside a number it is what is added to it, in
    #: `timestamp_rest_unit`: nanoseconds beside whole seconds, or the time of the week beside a gps_week. Beside a text
    #: it is what follows after a space: the time of day beside a date.
    timestamp_rest_field: str = ""
    #: Unit of `timestamp_rest_field`, where that is a number.
    timestamp_rest_unit: Precision = "ns"
    #: A time before this moment counts as missing: that of a clock that was not set. RFC 3339, or a date; "" is none.
    timestamp_not_before: str = ""
    #: Zone of times without an offset, with iso8601, ole_date and strptime formats: "UTC", "+01:00" or a name,
    #: "Europe/Berlin".
    timestamp_zone: str = "UTC"
    #: Abbreviation -> offset, for %Z in a strptime format: { CET = "+01:00" }. UTC and GMT are known.
    timestamp_zone_names: dict[str, str] = {}
    #: What to do with a message whose time is missing, null, empty or before `timestamp_not_before`, or 0 with
    #: timestamp_from = "origin_timestamp": reject it, or use another time.
    on_missing_timestamp: Literal["reject", "iggy_timestamp", "arrival"] = "reject"

    def time_paths(self) -> tuple[str, ...]:
        """The paths of the time, in the order in which they are tried; none if it is not from the message."""
        if self.timestamp_from != "field":
            return ()
        paths = self.timestamp_field
        return tuple(path for path in ((paths,) if isinstance(paths, str) else paths) if path)

    def time_formats(self) -> tuple[str, ...]:
        """The formats of the time, in the order in which they are tried."""
        forms = self.timestamp_format
        return (forms,) if isinstance(forms, str) else forms

    def all_time_paths(self) -> tuple[str, ...]:
        """The paths of the time, and that of its rest."""
        return (*self.time_paths(), *([self.timestamp_rest_field] if self.timestamp_rest_field else []))

    def needs_own_time(self) -> bool:
        """Whether a time depends on that of the message: it has no year, is relative to it (SenML), or counts weeks of
        GPS modulo 1,024.
        """
        return self.timestamp_from == "field" and any(
            form in ("rfc3164", "gps_week", "senml") or _lacks_year(form) for form in self.time_formats())


def _lacks_year(form: str) -> bool:
    directives = re.findall("%(.)", form, re.DOTALL)
    return bool(directives) and not set(directives) & set("YyGcx")
