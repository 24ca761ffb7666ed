"""Payload formats: one module for each, which turns a payload into the JSON texts of objects.

All formats are mapped in the same way from there on. `line_protocol` is the exception: its lines pass through.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pipeline.config.schema import MappingConfig
from stages.mapping.formats.column_texts import ReadColumns
from stages.mapping.limits import Limits
from stages.mapping.records.series import Origin
from stages.mapping.reject import Reject

#: Payload -> (prefix for errors about an object, such as "line 3: ", and its JSON text or Reject) for each object in
#: it. Raises Reject for the whole payload.
Transcoder = Callable[[bytes], Iterator[tuple[str, bytes | Reject]]]


#: The same for a payload and its message's origin. Raises Dropped for a message that is left out.
PlacedTranscoder = Callable[[bytes, Origin], Iterator[tuple[str, bytes | Reject]]]


class Quick(NamedTuple):
    """The quick way of a format: many payloads at once, as long as each is one usual object."""

    #: For each payload the JSON text that the transcoder yields; None where that has to be asked.
    texts: Callable[[Sequence[bytes]], list[bytes | None]]
    #: The prefix that the transcoder yields with it.
    name: str = ""
    #: The same by column, without JSON objects; None where the format has no columns.
    columns: ReadColumns | None = None


def transcoder(config: MappingConfig) -> Transcoder:
    """The transcoder of a mapping's format. Raises `errors.BadFormat` if its files or packages are missing.

    It yields objects one by one, so that the caller can stop at a limit.
    """
    limits = Limits.of(config)
    # Each process imports only the format that it needs.
    match config.format:
        case "ndjson":
            from stages.mapping.formats.ndjson import objects
            return objects
        case "msgpack":
            from stages.mapping.formats.msgpack import msgpack_transcoder
            return msgpack_transcoder(limits)
        case "text":
            from stages.mapping.formats.text import text_transcoder
            return text_transcoder(config.text_field, limits)
        case "csv":
            from stages.mapping.formats.csv import csv_transcoder
            return csv_transcoder(config, limits)
        case "avro":
            from stages.mapping.formats.avro import avro_transcoder
            return avro_transcoder(config, limits)
        case "protobuf":
            from stages.mapping.formats.protobuf import protobuf_transcoder
            return protobuf_transcoder(config, limits)
        case "cbor":
            from stages.mapping.formats.cbor import cbor_transcoder
            return cbor_transcoder(limits)
        case "senml":
            from stages.mapping.formats.senml import senml_transcoder
            return senml_transcoder(limits)
        case "opentelemetry":
            from stages.mapping.formats.opentelemetry import opentelemetry_transcoder
            return opentelemetry_transcoder(limits)
        case "prometheus":
            from stages.mapping.formats.prometheus import prometheus_transcoder
            return prometheus_transcoder(limits)
        case _:
            from stages.mapping.formats.json import json_transcoder
            return json_transcoder(limits, config.schema_header == "confluent")


def placed_transcoder(config: MappingConfig, topic: str) -> PlacedTranscoder | None:
    """The transcoder of a format whose payloads mean something only together with their messages' headers and topic;
    None for other formats. Raises what `transcoder` raises."""
    if config.format != "sparkplug":
        return None
    from stages.mapping.formats.sparkplug import sparkplug_reader
    return sparkplug_reader(config, topic, Limits.of(config))


def quick(config: MappingConfig) -> Quick | None:
    """The quick way of a mapping's format; None where it has none. Raises what `transcoder` raises."""
    limits = Limits.of(config)
    match config.format:
        case "msgpack":
            from stages.mapping.formats.msgpack import quick_msgpack
            from stages.mapping.formats.msgpack_columns import MsgpackColumns
            return Quick(quick_msgpack(limits), columns=MsgpackColumns().columns)
        case "text":
            from stages.mapping.formats.text import quick_text
            return Quick(quick_text(config.text_field))
        case "csv" if config.csv_header and len(config.csv_header) <= limits.keys and _is_usual_csv(config):
            from stages.mapping.formats.csv import QuickCsv
            lines = QuickCsv(config.csv_header, config.csv_delimiter, config.csv_trim, limits)
            return Quick(lines.texts, "line 1: ", lines.columns)
        case "avro" if config.avro_schema and config.schema_header == "none":
            from stages.mapping.formats.avro import quick_avro
            return quick_avro(config.avro_schema, limits)
        case "avro" if config.schema_header == "confluent" and (config.avro_schema or config.schema_folder):
            from stages.mapping.formats.avro import quick_confluent_avro
            return quick_confluent_avro(config, limits)
        case "protobuf":
            from stages.mapping.formats.protobuf import quick_protobuf
            found = quick_protobuf(config, limits)
            return None if found is None else Quick(found)
        case _:
            return None


def _is_usual_csv(config: MappingConfig) -> bool:
    """Whether every line is a record, written as RFC 4180 has it."""
    return (config.csv_comment, config.csv_skip_lines, config.csv_decimal, config.csv_none, config.csv_quote,
            config.csv_encoding) == ("", 0, ".", (), '"', "utf-8")


def each(function: Callable[[Any], Any], values: Sequence[Any], errors: tuple[type[Exception], ...]) -> list[Any]:
    """The results of a function; None where it raised one of the errors."""
    out: list[Any] = []
    results = map(function, values)
    while True:
        try:
            out.extend(results)  # what came before an error is kept, and it goes on after it
            return out
        except errors:
            out.append(None)
