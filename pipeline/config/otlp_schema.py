"""The schema of `[otlp]`: where the metrics are sent by the OpenTelemetry protocol. See `pipeline.config.schema`."""

from typing import Annotated

from msgspec import Meta, Struct

from pipeline.config.scalars import FilePath


class OtlpConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[otlp]`: sends the metrics to an OpenTelemetry collector, beside `/metrics`. Needs the extra `otlp`."""

    #: URL of the receiver of metrics, OTLP over HTTP: "http://127.0.0.1:4318/v1/metrics". "": nothing is sent.
    endpoint: str = ""
    #: Sent with every request, for a login.
    headers: dict[str, str] = {}
    #: Interval between two exports.
    interval_ms: Annotated[int, Meta(ge=1_000, le=3_600_000)] = 60_000
    #: Longest time for one export, with its retries.
    timeout_ms: Annotated[int, Meta(ge=100, le=300_000)] = 10_000
    #: Compress what is sent.
    gzip: bool = True
    #: PEM file of the certificate authority that the receiver's certificate is verified with; "": those of certifi.
    ca_file: FilePath = ""
    #: Attributes of the resource, beside `service.name`, `service.version` and `service.instance.id`, which is the
    #: machine's name with the number of the process.
    attributes: dict[str, str] = {}
