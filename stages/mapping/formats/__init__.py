"""What payloads may be: one file for each format, which turns a payload into the JSON texts of objects.

From there on every format goes the same way. `line_protocol` is the exception: its lines pass through.
"""

from collections.abc import Callable, Iterator

from pipeline.schema import MappingConfig

#: Payload -> (what to call the object in an error, its JSON text) of each object in it. Raises Reject for the whole.
Transcoder = Callable[[bytes], Iterator[tuple[str, bytes]]]


def transcoder(config: MappingConfig) -> Transcoder:
    """The transcoder of a mapping's format. Raises `errors.BadFormat` where its files or packages are not there."""
    # Each process imports only the format that it needs.
    match config.format:
        case "ndjson":
            from stages.mapping.formats.ndjson import objects
            return objects
        case "msgpack":
            from stages.mapping.formats.msgpack import objects
            return objects
        case "text":
            from stages.mapping.formats.text import text_transcoder
            return text_transcoder(config.text_field)
        case "csv":
            from stages.mapping.formats.csv import csv_transcoder
            return csv_transcoder(config.csv_header, config.csv_delimiter)
        case "avro":
            from stages.mapping.formats.avro import avro_transcoder
            return avro_transcoder(config.avro_schema)
        case "protobuf":
            from stages.mapping.formats.protobuf import protobuf_transcoder
            return protobuf_transcoder(config.protobuf_descriptor, config.protobuf_message)
        case _:
            from stages.mapping.formats.json import objects
            return objects
