"""What two configurations must have in common for their processes to work on the same batches."""

import hashlib

import msgspec

from pipeline.schema import Config


def config_digest(config: Config) -> str:
    """Of all that an encoder goes by: topics, mappings, precision, gzip. No secrets."""
    sinks = config.all_sinks()
    parts = [(one.sink, one.stream, one.topic, sinks[one.sink].mapping, sinks[one.sink].influxdb.precision,
              sinks[one.sink].influxdb.gzip) for one in config.subscriptions()]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
