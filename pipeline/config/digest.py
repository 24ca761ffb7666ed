"""A digest of the options that encoders on different machines must have in common."""

import hashlib
from pathlib import Path

import msgspec
from msgspec.structs import replace

from pipeline.config.schema import Config, MappingConfig


def config_digest(config: Config) -> str:
    """Of all that an encoder goes by: topics, mappings, precision, gzip. No secrets.

    For a file that a mapping names, the digest covers its content and not its path.
    """
    sinks = config.all_sinks()
    parts = [(one.sink, one.stream, one.topic, _with_contents(sinks[one.sink].mapping),
              sinks[one.sink].influxdb.precision, sinks[one.sink].influxdb.gzip) for one in config.subscriptions()]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _with_contents(mapping: MappingConfig) -> MappingConfig:
    return replace(mapping, avro_schema=_digest(mapping.avro_schema), transform_path="",
                   protobuf_descriptor=_digest(mapping.protobuf_descriptor))


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except OSError as error:
        return str(error.strerror)
