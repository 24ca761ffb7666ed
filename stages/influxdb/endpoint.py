"""Where a write goes and how it is signed, by the flavour of InfluxDB. Pure.

Sources: InfluxDB API reference, `POST /api/v2/write` (v2) and `POST /write` (v1).
"""

from urllib.parse import urlencode

from msgspec import Struct

from pipeline.schema import InfluxConfig

#: v1 spells the precisions its own way, and ignores what it doesn't know: https://docs.influxdata.com/influxdb/v1
V1_PRECISIONS = {"ns": "n", "us": "u", "ms": "ms", "s": "s"}


class WriteEndpoint(Struct, frozen=True):
    """A URL to POST lines to. The headers may hold secrets; the URL doesn't."""

    url: str
    headers: dict[str, str]
    #: User and password of HTTP basic authentication, or None.
    auth: tuple[str, str] | None


def write_endpoint(config: InfluxConfig) -> WriteEndpoint:
    """The endpoint that `[influxdb]` asks for."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "Accept": "application/json"}
    if config.gzip:
        headers["Content-Encoding"] = "gzip"
    if config.token:
        headers["Authorization"] = f"Token {config.token}"
    auth = (config.username, config.password) if config.username and not config.token else None
    base = config.url.rstrip("/")
    if config.version == "v1":
        query = urlencode({"db": config.database, "precision": V1_PRECISIONS[config.precision]})
        return WriteEndpoint(f"{base}/write?{query}", headers, auth)
    query = urlencode({"org": config.org, "bucket": config.bucket, "precision": config.precision})
    return WriteEndpoint(f"{base}/api/v2/write?{query}", headers, auth)
