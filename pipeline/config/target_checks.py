"""What is wrong with how a database is named and reached, as far as a configuration alone can tell."""

import re
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from pipeline.config.schema import InfluxConfig

#: An organization's id in InfluxDB 2; all zeros is none. Source: influxdata/influxdb, `kit/platform/id.go`.
_ORG_ID = re.compile(r"(?!0{16})[0-9A-Fa-f]{16}")
_PROXY = re.compile(r"(http://)?[^/\s]+/?")
#: A token with the scheme that is put before it by itself.
HAS_SCHEME = re.compile(r"\s*(token|bearer|basic)\s", re.IGNORECASE)
#: What our requests have of themselves.
_OURS = ("connection", "content-encoding", "content-length", "transfer-encoding")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def connection_problems(influxdb: InfluxConfig, key: str) -> Iterator[str]:
    """A line for each mistake, of a sink's `[influxdb]` or a source's. Reads `ca_file`."""
    if influxdb.org_id and not _ORG_ID.fullmatch(influxdb.org_id):
        yield (f"{key}.org_id: is no id of an organization; give its 16 hexadecimal digits, as in the URL of "
               "InfluxDB's own pages, or org, its name")
    if influxdb.org and influxdb.org_id:
        yield f"{key}.org_id: not beside org; give one of them"
    if HAS_SCHEME.match(influxdb.token):
        yield f'{key}.token: give the token alone, without "Token" or "Bearer" before it'
    if influxdb.proxy and not _PROXY.fullmatch(influxdb.proxy):
        yield f"{key}.proxy: is not allowed; give http://host:port"
    for name in influxdb.headers:
        if name.lower() in _OURS:
            yield f"{key}.headers.{name}: is set by the pipeline itself; remove it"
    if influxdb.ca_file:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(influxdb.ca_file)
        except (OSError, ValueError) as error:
            readable = isinstance(error, ssl.SSLError) or not isinstance(error, OSError)
            why = "it holds no certificate in PEM form" if readable else getattr(error, "strerror", "")
            yield f"{key}.ca_file: {influxdb.ca_file} can't be used: {why}"


def target_problems(influxdb: InfluxConfig, key: str, iggy: str) -> Iterator[str]:
    """A line for each mistake of a sink's `[influxdb]` only. `iggy` is host:port of Iggy."""
    if influxdb.version == "v2" and not (influxdb.org or influxdb.org_id):
        yield (f'{key}.org: required with version = "v2" (or org_id); any name, where the server has no organizations')
    for option, url in influxdb.named_servers():
        if _is_at(url, iggy):
            yield f"{key}.{option}: is the address of Iggy; give InfluxDB's, such as http://127.0.0.1:8086"


def _is_at(url: str, address: str) -> bool:
    """Whether a URL is at host:port."""
    host, _, port = address.rpartition(":")
    try:
        parts = urlsplit(url)
        same_port = str(parts.port) == port
    except ValueError:
        return False
    ours, theirs = parts.hostname or "", host.strip("[]").lower()
    return same_port and (ours == theirs or ours in _LOOPBACK and theirs in _LOOPBACK)
