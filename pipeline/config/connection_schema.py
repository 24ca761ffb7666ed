"""How an InfluxDB is reached: the options that `[influxdb]` and `[sources.influxdb]` have in common."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from pipeline.config.scalars import DayMilliseconds, FilePath, NonEmpty

#: The server where neither `url` nor `urls` is given.
DEFAULT_URL: Final = "http://127.0.0.1:8086"


class ConnectionConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The servers of one database, the database's name there, credentials, TLS, proxy, timeouts and retries."""

    #: The server; http://127.0.0.1:8086 when neither this nor `urls` is given.
    url: NonEmpty = ""
    #: Several servers with the same data, instead of `url`. The first that works is used, unless `replication` in
    #: `[influxdb]` is "mirror".
    urls: tuple[NonEmpty, ...] = ()
    #: "auto" asks the server. A sink writes to /write?db= with "v1", to /api/v2/write with "v2" (also InfluxDB 3 and
    #: Cloud), to /api/v3/write_lp with "v3".
    version: Literal["auto", "v1", "v2", "v3"] = "auto"
    #: Name of the organization, with v2.
    org: str = ""
    #: 16-digit id of the organization, instead of `org`.
    org_id: str = ""
    #: Name of the bucket, with v2.
    bucket: str = ""
    #: Name of the database, with v1 and v3. A source also needs it with v2 and InfluxQL, if it does not have the
    #: bucket's name.
    database: str = ""
    #: Retention policy, with v1; "" is the database's default.
    retention_policy: str = ""
    #: Token of InfluxDB 2 or 3.
    token: str = ""
    #: File that holds the token; read again when the server answers 401.
    token_file: FilePath = ""
    #: User, with v1; optional.
    username: str = ""
    #: Password of the user.
    password: str = ""
    #: Compress what is written, or ask for compressed answers: worth it over a network, not on localhost.
    gzip: bool = True
    #: Sent with every request.
    headers: dict[str, str] = {}
    #: PEM file of the certificate authority that the server's certificate is verified with; "": those of certifi.
    ca_file: FilePath = ""
    #: PEM file of the client's own certificate.
    client_cert_file: FilePath = ""
    #: PEM file of its key.
    client_key_file: FilePath = ""
    #: Accept any TLS certificate. Traffic can then be intercepted and altered; set `ca_file` instead.
    insecure_skip_verify: bool = False
    #: http://host:port or http://user:password@host:port
    proxy: str = ""
    #: Longest time for connecting, with TLS and the proxy.
    connect_timeout_ms: DayMilliseconds = 10_000
    #: Longest wait for the next bytes of an answer.
    read_timeout_ms: DayMilliseconds = 30_000
    #: Retry n waits a random time from 0 to retry_backoff_ms * retry_backoff_multiplier ** n, at most
    #: retry_backoff_max_ms.
    retry_backoff_ms: DayMilliseconds = 200
    #: The multiplier in it.
    retry_backoff_multiplier: Annotated[float, Meta(ge=1.0, le=10.0)] = 2.0
    #: Longest wait before a retry.
    retry_backoff_max_ms: DayMilliseconds = 30_000
    #: Longest wait that a server's Retry-After may ask for.
    retry_after_max_ms: DayMilliseconds = 300_000

    def servers(self) -> tuple[str, ...]:
        """The URLs of all servers, in the order of the configuration; at least one."""
        return self.urls or (self.url or DEFAULT_URL,)

    def named_servers(self) -> list[tuple[str, str]]:
        """The same with the key of each: "url" or "urls[0]", and the URL."""
        return [(f"urls[{index}]", url) for index, url in enumerate(self.urls)] or [("url", self.url or DEFAULT_URL)]
