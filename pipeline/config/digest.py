"""A digest of the options that encoders on different machines must have in common."""

import hashlib
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from pipeline.config.schema import Config, MappingConfig

#: Version of the messages between processes. A pipeline and its encoders on other machines need the same one; all other
#: processes of a pipeline are of one release. It grows with every change that an earlier release would misunderstand.
WIRE_VERSION: Final = 1


def config_digest(config: Config) -> str:
    """Of all that an encoder goes by: topics, mappings, precision, gzip. No secrets. It begins with `WIRE_VERSION`.

    For a file that a mapping names, the digest covers its content and not its path.
    """
    sinks = config.all_sinks()
    parts = [(one.sink, one.stream, one.topic, _with_contents(sinks[one.sink].mapping),
              sinks[one.sink].influxdb.precision, sinks[one.sink].influxdb.gzip) for one in config.subscriptions()]
    return f"{WIRE_VERSION}-{hashlib.sha256(msgspec.json.encode(parts)).hexdigest()}"


def wire_version(digest: str) -> int | None:
    """The `WIRE_VERSION` in a digest; None in what is none, or is of a release before there was one."""
    version, _, rest = digest.partition("-")
    return int(version) if rest and version.isascii() and version.isdigit() and len(version) < 6 else None


def _with_contents(mapping: MappingConfig) -> MappingConfig:
    return replace(mapping, avro_schema=_digest(mapping.avro_schema), transform_path="",
                   protobuf_descriptor=_digest(mapping.protobuf_descriptor))


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except OSError as error:
        return str(error.strerror)
