"""Mistakes in a sink's `[influxdb]`: those of every connection, and those of writing. Reads files; asks no server."""

from typing import Final
from urllib.parse import urlsplit

from pipeline.config.connection_checks import VersionOptions, connection_problems
from pipeline.config.schema import InfluxConfig
from pipeline.config.values import Used

#: Options that only some write APIs use.
_VERSION_OPTIONS: Final[VersionOptions] = (
    ("bucket", ("v2",)), ("org", ("v2",)), ("org_id", ("v2",)), ("database", ("v1", "v3")),
    ("retention_policy", ("v1",)), ("consistency", ("v1",)), ("accept_partial", ("v3",)), ("no_sync", ("v3",)))
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def influxdb_problems(influxdb: InfluxConfig, key: str, used: Used, iggy_address: str) -> list[str]:
    """A line for each mistake: key, and what is allowed. Files are read only for keys that are `used`."""
    problems = connection_problems(influxdb, key, used, _VERSION_OPTIONS)
    if influxdb.replication == "mirror" and len(influxdb.servers()) == 1:
        problems.append(f'{key}.urls: required with replication = "mirror", and at least two servers in it')
    if influxdb.version == "v2" and not (influxdb.org or influxdb.org_id):
        problems.append(f'{key}.org: required with version = "v2" (or org_id); any name, where the server has no '
                        "organizations")
    problems += [f"{key}.{option}: is the address of Iggy; give InfluxDB's, such as http://127.0.0.1:8086"
                 for option, url in influxdb.named_servers() if _is_at(url, iggy_address)]
    return problems


def _is_at(url: str, address: str) -> bool:
    """Whether a URL is at `host:port`. All names of the loopback interface are one host."""
    host, _, port = address.rpartition(":")
    try:
        parts = urlsplit(url)
        same_port = str(parts.port) == port
    except ValueError:
        return False
    ours, theirs = parts.hostname or "", host.strip("[]").lower()
    return same_port and (ours == theirs or ours in _LOOPBACK and theirs in _LOOPBACK)
