"""The kind of server at a URL, from its `/health` and `/ping`. `detect` is pure."""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from pipeline.config.schema import InfluxConfig
from stages.influxdb.deadline import Limits
from stages.influxdb.dialect import Dialect
from stages.influxdb.error_body import json_object, one_line
from stages.influxdb.http_client import HttpClient

Version = Literal["v1", "v2", "v3"]
VICTORIA_METRICS: Final = "VictoriaMetrics or compatible"
QUESTDB: Final = "QuestDB"
IGGY: Final = "Apache Iggy's HTTP API"


class Flavour(Struct, frozen=True):
    """The kind and version of a server."""

    #: "InfluxDB OSS", "InfluxDB Core", "InfluxDB Cloud", ...
    product: str
    #: As the server reports it; "" if it does not.
    version: str
    #: The newest write API that it certainly has; None if none is known.
    api: Version | None

    def __str__(self) -> str:
        return f"{self.product} {self.version}".strip()


UNKNOWN: Final = Flavour("a server of unknown kind", "", None)


def detect(health: tuple[int, bytes], ping: tuple[int, Mapping[str, str], bytes]) -> Flavour:
    """The flavour, from status and body of GET /health, and status, headers and body of GET /ping.

    Names of headers are in lower case.
    """
    ping_status, headers, ping_body = ping
    fields = {**json_object(health[1]), **json_object(ping_body)}
    version = one_line(headers.get("x-influxdb-version") or str(fields.get("version") or ""))
    build = one_line(headers.get("x-influxdb-build", ""))
    if ping_status == 401 and "cluster-uuid" in headers:
        return Flavour("InfluxDB 3, which hides its version without a valid token", "", "v3")
    if headers.get("server", "").lower().startswith("questdb"):  # its /ping reports an InfluxDB 2
        return Flavour(QUESTDB, "", None)
    if ping_body == b"pong" and "iggy-view" in headers.get("access-control-expose-headers", ""):
        return Flavour(IGGY, "", None)
    number = version.lstrip("vV")
    if "victoria" in health[1][:200].decode("latin-1").lower() or (health[1] == b"OK" and ping_status == 204
                                                                   and not version):
        return Flavour(VICTORIA_METRICS, "", None)
    if number.startswith("3") or build in ("Core", "Enterprise") and not number.startswith(("1", "2")):
        return Flavour(f"InfluxDB {build or '3'}".replace("InfluxDB 3", "InfluxDB"), number, "v3")
    if number.startswith("2"):
        return Flavour(f"InfluxDB {build or 'OSS'}", number, "v2")
    if number.startswith("1"):
        return Flavour(f"InfluxDB {build or 'OSS'}", number, "v1")
    if "cloud" in build.lower() or "Cloud" in version:
        return Flavour("InfluxDB Cloud", number, "v2")
    return UNKNOWN


def identify(client: HttpClient, url: str, credentials: Mapping[str, str], limits: Limits) -> Flavour:
    """Asks the server at `url`. Raises HttpFault. InfluxDB 3 reports its version only with `credentials` (headers)."""
    health, ping = (client.exchange("GET", url.rstrip("/") + path, b"", credentials, limits)
                    for path in ("/health", "/ping"))
    return detect((health.status, health.body), (ping.status, ping.headers, ping.body))


def write_version(config: InfluxConfig, flavour: Flavour | None) -> Version:
    """The write API to use: the configured one; with "auto" the best that server and configuration support."""
    if config.version != "auto":
        return config.version
    api = flavour.api if flavour else None
    if api == "v3":  # it has the others, too, but only its own one identifies bad lines
        return "v3"
    return "v2" if config.bucket and api != "v1" else "v1"


def dialect_of(config: InfluxConfig, flavour: Flavour | None) -> Dialect:
    """The dialect of line protocol that the server parses."""
    if flavour is not None and flavour.product in (QUESTDB, VICTORIA_METRICS):
        return "questdb" if flavour.product == QUESTDB else "victoria_metrics"
    return "influxdb3" if config.version == "v3" or flavour is not None and flavour.api == "v3" else "influxdb"


def keeps_repeats(flavour: Flavour) -> bool:
    """Whether a point that is written twice is stored twice: QuestDB without DEDUP, and VictoriaMetrics."""
    return flavour.product in (QUESTDB, VICTORIA_METRICS)


def version_mismatch(config: InfluxConfig, flavour: Flavour) -> str:
    """What does not fit between the configuration and this server, and what to do; "" if nothing."""
    if flavour.product == IGGY:
        return f"it is {flavour}, not InfluxDB; set url to InfluxDB's, such as http://127.0.0.1:8086"
    if config.version == "v3" and (flavour.api in ("v1", "v2") or flavour.product in (VICTORIA_METRICS, QUESTDB)):
        return f'it is {flavour}, which has no /api/v3/write_lp; set version = "{flavour.api or "v1"}" or "auto"'
    if config.version == "v2" and flavour.api == "v1" and not flavour.version.startswith(("1.8", "1.9", "1.1")):
        return f'it is {flavour}, which has no /api/v2/write; set version = "v1" (or "auto") and database'
    if config.version == "auto" and flavour.api == "v1" and not config.database:
        return f"it is {flavour}, which has databases, not buckets; set database"
    if flavour.api == "v2" and write_version(config, flavour) == "v2" and not (config.org or config.org_id):
        return f"it is {flavour}, whose buckets belong to organizations; set org, or org_id"
    return ""
