"""`pipeline config check --connect`: asks both ends whether all that a pipeline needs is there and allowed.

No message and no point is written. The right to store offsets is tried under a name of its own, which is removed again;
the right to write to a database with a request without lines.
"""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from pipeline.config.connection_schema import ConnectionConfig
from pipeline.config.schema import Config, InfluxConfig, SinkConfig
from pipeline.config.source_schema import SourceConfig
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from stages.influxdb.deadline import Limits
    from stages.influxdb.flavour import Version
    from stages.influxdb.http_client import HttpClient

#: Longest wait for one answer of a database, seconds.
ANSWER_SECONDS: Final = 10.0
#: InfluxDB 3 answers a request without lines with this, after it has checked the token. Source: recorded answers of
#: InfluxDB 3 Core 3.9.6.
_EMPTY_WRITE: Final = b"incoming write was empty"


class ConnectionCheck(Struct, frozen=True):
    """One thing that was asked."""

    #: Whom: "Iggy at 127.0.0.1:8090", "sink main: http://127.0.0.1:8086".
    server: str
    #: What: "topic telemetry/sensors exists".
    what: str
    ok: bool
    #: What was answered, and what to do if it is not ok.
    detail: str = ""


def check_connections(config: Config) -> list[ConnectionCheck]:
    """All checks, of Iggy first. Takes as long as the servers take to answer, some seconds each."""
    import asyncio

    from pipeline.commands.configuration.iggy_rights import iggy_checks

    checks = asyncio.run(iggy_checks(config))
    seen: list[tuple[str, InfluxConfig, tuple[str, ...]]] = []
    for sink in config.all_sinks():
        for url in sink.influxdb.servers():
            target = url, sink.influxdb, _buckets(sink)
            if target not in seen:
                seen.append(target)
                checks += _database_checks(sink, url)
    for source in config.sources:
        checks += _source_checks(config, source)
    return checks


def _buckets(sink: SinkConfig) -> tuple[str, ...]:
    """Every bucket that a sink may write to; "" is the configured one."""
    return tuple(dict.fromkeys(("", *(rule.bucket for rule in sink.mapping.rules if rule.bucket),
                                *sink.mapping.allowed_buckets)))


def _database_checks(sink: SinkConfig, url: str) -> Iterator[ConnectionCheck]:
    from stages.influxdb.credentials import Credentials
    from stages.influxdb.deadline import Limits
    from stages.influxdb.failures import failure_of, with_advice
    from stages.influxdb.flavour import identify, version_mismatch, write_version
    from stages.influxdb.http_answer import HttpFault
    from stages.influxdb.http_client import HttpClient

    influxdb, server = sink.influxdb, f"sink {sink.name}: {url}"
    limits = Limits(ANSWER_SECONDS, connect=min(ANSWER_SECONDS, influxdb.connect_timeout_ms / 1000))
    try:
        client, credentials = HttpClient(influxdb), Credentials(influxdb)
        flavour = identify(client, url, credentials.header("v2"), limits)
    except HttpFault as fault:
        yield ConnectionCheck(server, "reachable", False, with_advice(failure_of(fault, url), "write").message)
        return
    except PipelineError as error:
        yield ConnectionCheck(server, "credentials and files", False, str(error))
        return
    yield ConnectionCheck(server, "reachable", True, f"{flavour}{_encryption(influxdb, url)}")
    if mismatch := version_mismatch(influxdb, flavour):
        yield ConnectionCheck(server, "version", False, mismatch)
        return
    version = write_version(influxdb, flavour)
    for bucket in _buckets(sink):
        name = bucket or influxdb.bucket if version == "v2" else bucket or influxdb.database or influxdb.bucket
        what = f"login, {'bucket' if version == 'v2' else 'database'} {name} and the right to write to it"
        try:
            detail = _why_not_written(client, credentials.header(version), influxdb, url, bucket, version, limits)
        except HttpFault as fault:
            detail = with_advice(failure_of(fault, url), "write").message
        yield ConnectionCheck(server, what, not detail, detail)


def _why_not_written(client: "HttpClient", credentials: Mapping[str, str], influxdb: InfluxConfig, url: str,
                     bucket: str, version: "Version", limits: "Limits") -> str:
    """Why a request without lines is refused; "" if it is accepted. Raises HttpFault."""
    from stages.influxdb.answers import Accepted, OperatorNeeded, Retry
    from stages.influxdb.classify import classify
    from stages.influxdb.endpoint import write_url
    from stages.influxdb.failures import answered_by, with_advice

    target = write_url(influxdb, url, version, bucket)
    headers = {"Content-Type": "text/plain; charset=utf-8", "Accept": "application/json", **credentials}
    reply = client.exchange("POST", target, b"", headers, limits)
    if reply.status // 100 == 2 or _EMPTY_WRITE in reply.body:
        return ""
    answer = classify(reply.status, reply.headers, reply.body, time.time(), version)
    if isinstance(answer, Accepted):
        return ""
    if isinstance(answer, OperatorNeeded | Retry):
        return with_advice(answered_by(answer, target), "write").message
    return f"{target} answered HTTP {reply.status}: {getattr(answer, 'message', '')}; correct the influxdb table"


def _encryption(influxdb: ConnectionConfig, url: str) -> str:
    if not url.lower().startswith("https:"):
        return ", not encrypted"
    return ", TLS, its certificate is not verified (insecure_skip_verify)" if influxdb.insecure_skip_verify else \
        ", TLS, its certificate is verified"


def _source_checks(config: Config, source: SourceConfig) -> Iterator[ConnectionCheck]:
    import logging

    from pipeline.commands.preflight import source_failure
    from stages.influxdb.failures import with_advice

    server = f"source {source.name}: {', '.join(source.influxdb.servers())}"
    what = "login and the query" if source.query else "login and the list of measurements"
    try:
        failure = source_failure(source, config, logging.getLogger("check"), warns=True)
    except PipelineError as error:
        yield ConnectionCheck(server, what, False, str(error))
        return
    detail = with_advice(failure, "read").message if failure is not None else \
        _encryption(source.influxdb, source.influxdb.servers()[0]).removeprefix(", ")
    yield ConnectionCheck(server, what, failure is None, detail)
