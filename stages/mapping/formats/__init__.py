"""Payload formats: one module for each, which turns a payload into the JSON texts of objects.

All formats are mapped in the same way from there on. `line_protocol` is the exception: its lines pass through.
"""

from collections.abc import Callable, Iterator

from pipeline.config.schema import MappingConfig
from stages.mapping.limits import Limits
from stages.mapping.reject import Reject

#: Payload -> (prefix for errors about an object, such as "line 3: ", and its JSON text or Reject) for each object in
#: it. Raises Reject for the whole payload.
Transcoder = Callable[[bytes], Iterator[tuple[str, bytes | Reject]]]


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
            return csv_transcoder(config.csv_header, config.csv_delimiter, config.csv_trim, limits)
        case "avro":
            from stages.mapping.formats.avro import avro_transcoder
            return avro_transcoder(config.avro_schema, limits, config.max_payload_bytes)
        case "protobuf":
            from stages.mapping.formats.protobuf import protobuf_transcoder
            return protobuf_transcoder(config.protobuf_descriptor, config.protobuf_message, limits)
        case _:
            from stages.mapping.formats.json import json_transcoder
            return json_transcoder(limits)
