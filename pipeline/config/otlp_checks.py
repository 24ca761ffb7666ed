"""Mistakes in `[otlp]`."""

import importlib.util
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from pipeline.config.otlp_schema import OtlpConfig
from pipeline.config.values import Used, shown
from pipeline.errors import missing_package

PACKAGE = "opentelemetry-exporter-otlp-proto-http"


def otlp_problems(otlp: OtlpConfig, used: Used) -> Iterator[str]:
    """A line for each mistake. Files are read only for keys that are `used`."""
    if not used("otlp.endpoint"):
        return
    if not otlp.endpoint:
        if otlp != OtlpConfig():
            yield "otlp.endpoint: required with the other keys of [otlp]; give the URL of a receiver"
        return
    try:
        parts = urlsplit(otlp.endpoint)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        yield "otlp.endpoint: is no URL; give one such as \"http://127.0.0.1:4318/v1/metrics\""
    elif parts.path in ("", "/"):
        yield (f"otlp.endpoint: {shown(parts.scheme + '://' + parts.netloc.rpartition('@')[2])} has no path; receivers "
               "take metrics at /v1/metrics")
    if otlp.timeout_ms > otlp.interval_ms:
        yield "otlp.timeout_ms: must not be longer than otlp.interval_ms"
    for name, value in otlp.headers.items():
        if not name.isascii() or not name or not value.isprintable() or not value.isascii():
            yield f"otlp.headers.{shown(name)}: holds what no HTTP header may have; give printable ASCII"
    if otlp.ca_file and used("otlp.ca_file") and not os.access(otlp.ca_file, os.R_OK):
        yield f"otlp.ca_file: {otlp.ca_file} {'cannot be read' if os.path.exists(otlp.ca_file) else 'does not exist'}"
    if importlib.util.find_spec("opentelemetry") is None:
        yield f"otlp.endpoint: {missing_package(PACKAGE, 'otlp')}"
