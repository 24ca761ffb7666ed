"""What two configurations must have in common for their processes to work on the same batches."""

import hashlib
from pathlib import Path

import msgspec
from msgspec.structs import replace

from pipeline.config.schema import Config, MappingConfig


def config_digest(config: Config) -> str:
    """Of all that an encoder goes by: topics, mappings, precision, gzip. No secrets.

    Of the files that a mapping names, what is in them counts, and not where they are.
    """
    sinks = config.all_sinks()
    parts = [(one.sink, one.stream, one.topic, _with_contents(sinks[one.sink].mapping),
              sinks[one.sink].influxdb.precision, sinks[one.sink].influxdb.gzip) for one in config.subscriptions()]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _with_contents(mapping: MappingConfig) -> MappingConfig:
    return replace(mapping, avro_schema=_digest(mapping.avro_schema),
                   protobuf_descriptor=_digest(mapping.protobuf_descriptor))


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except OSError as error:
        return str(error.strerror)
