"""URL and Authorization header of a write, by the version of the API. Pure.

Sources: InfluxDB API references, `POST /api/v2/write` (2.x, 3, Cloud), `POST /write` (1.x and compatible) and
`POST /api/v3/write_lp` (3 Core and Enterprise).
"""

from urllib.parse import urlencode

from pipeline.config.schema import InfluxConfig
from stages.influxdb.flavour import Version

#: v1 has its own names of precisions, and ignores unknown ones.
V1_PRECISIONS = {"ns": "n", "us": "u", "ms": "ms", "s": "s"}
V3_PRECISIONS = {"ns": "nanosecond", "us": "microsecond", "ms": "millisecond", "s": "second"}


def write_url(config: InfluxConfig, base: str, version: Version, bucket: str = "") -> str:
    """The URL to POST lines to at the server `base`. `bucket` replaces the configured bucket or database."""
    database = bucket or config.database or config.bucket
    if version == "v1":
        query = {"db": database, "precision": V1_PRECISIONS[config.precision]}
        if config.retention_policy:
            query["rp"] = config.retention_policy
        if config.consistency:
            query["consistency"] = config.consistency
        path = "/write"
    elif version == "v2":
        query = {"bucket": bucket or config.bucket, "precision": config.precision}
        if config.org_id:
            query = {"orgID": config.org_id, **query}
        elif config.org:
            query = {"org": config.org, **query}
        path = "/api/v2/write"
    else:
        query = {"db": database, "precision": V3_PRECISIONS[config.precision],
                 "accept_partial": str(config.accept_partial).lower(), "no_sync": str(config.no_sync).lower()}
        path = "/api/v3/write_lp"
    return f"{base.rstrip('/')}{path}?{urlencode(query)}"


def authorization(version: Version, token: str) -> str:
    """The Authorization header's value for a token: `Bearer` for v3, `Token` for v1 and v2."""
    return f"{'Bearer' if version == 'v3' else 'Token'} {token}"
