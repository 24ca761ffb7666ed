"""Writes to one server: asks what kind it is, sends lines in its dialect, and classifies its answers."""

import logging
import threading
import time
from urllib.parse import urlencode

import msgspec

from pipeline.compression import compress, decompress
from pipeline.config.schema import InfluxConfig
from pipeline.logs import RepeatFilter
from stages.influxdb.answers import Answer, BadLines, OperatorNeeded, Retry, UnlocatedBadLines
from stages.influxdb.body import LINE
from stages.influxdb.classify import classify
from stages.influxdb.credentials import Credentials
from stages.influxdb.deadline import Limits
from stages.influxdb.dialect import ColumnCheck, adapt
from stages.influxdb.endpoint import write_url
from stages.influxdb.error_body import json_object
from stages.influxdb.failures import answered_by
from stages.influxdb.flavour import (
    UNKNOWN,
    Flavour,
    Version,
    dialect_of,
    identify,
    version_mismatch,
    write_version,
)
from stages.influxdb.http_answer import HttpFault
from stages.influxdb.http_client import HttpClient
from stages.influxdb.retention import SECOND, Bounds
from stages.influxdb.retention_messages import bounds_of_policy, policies_query
from stages.influxdb.retry_after import seconds_of

#: Bytes that any answer may have; and how many more for each byte of lines, which InfluxDB quotes: in JSON one
#: character may take six.
BASE_ANSWER_BYTES, QUOTED_FACTOR = 1_000_000, 6
#: Pause before an InfluxDB 1 that did not report its retention policies is asked for them again, seconds.
POLICY_RETRY_SECONDS = 60.0
#: Each mismatch of version and server is logged once in so many seconds.
MISMATCH_LOG_SECONDS = 60.0


def limits_of(config: InfluxConfig, body: bytes = b"") -> Limits:
    """The limits of a request with this body, of which an answer may quote every line."""
    connect, read = config.connect_timeout_ms / 1000, config.read_timeout_ms / 1000
    size = int.from_bytes(body[-4:], "little") if config.gzip else len(body)  # RFC 1952, ISIZE
    return Limits(config.request_timeout_ms / 1000 or connect + read, read, connect,
                  BASE_ANSWER_BYTES + QUOTED_FACTOR * size)


class Server:
    """One server of a database. Thread-safe."""

    def __init__(self, config: InfluxConfig, url: str, client: HttpClient, credentials: Credentials,
                 logger: logging.Logger) -> None:
        self.url = url
        self._config = config
        self._client = client
        self._credentials = credentials
        self._logger = logger
        self._lock = threading.Lock()
        self._flavour: Flavour | None = None
        self._mismatches = RepeatFilter(MISMATCH_LOG_SECONDS)
        self._columns = ColumnCheck()
        #: Buckets whose retention policies the server did not report, and when to ask again (seconds, monotonic).
        self._policies_due: dict[str, float] = {}

    @property
    def known_flavour(self) -> Flavour | None:
        """The kind of server, if it was asked since it last failed."""
        return self._flavour

    def forget_flavour(self) -> None:
        """Has the server asked again: it may be another one now, or report more with another token."""
        with self._lock:
            self._flavour = None

    def write(self, data: bytes, bucket: str, escapes: bool) -> Answer:
        """One request with a body. `escapes`: it has a backslash, or a line break in a string. Raises HttpFault."""
        flavour = self._identified() if self._config.version != "v3" else None
        version, dialect = write_version(self._config, flavour), dialect_of(self._config, flavour)
        if dialect == "questdb" and (lossy := self._lossy_lines(data)):
            return lossy
        if dialect == "questdb" or escapes and dialect != "influxdb":
            plain = decompress(data) if self._config.gzip else data
            if (adapted := adapt(plain, dialect)) is not plain:
                data = compress(adapted) if self._config.gzip else adapted
        target = write_url(self._config, self.url, version, bucket)
        headers = {"Content-Type": "text/plain; charset=utf-8", "Accept": "application/json",
                   **({"Content-Encoding": "gzip"} if self._config.gzip else {}), **self._credentials.header(version)}
        reply = self._client.exchange("POST", target, data, headers, limits_of(self._config, data))
        answer = classify(reply.status, reply.headers, reply.body, time.time(), version)
        if isinstance(answer, Retry | OperatorNeeded):
            return answered_by(answer, target)
        if isinstance(answer, BadLines) and answer.quoted is not None:
            return _located(answer, answer.quoted, decompress(data) if self._config.gzip else data)
        if isinstance(answer, UnlocatedBadLines) and answer.reason == "outside_retention" and not answer.bounds and (
                version == "v1" or flavour is not None and flavour.api == "v1"):
            return msgspec.structs.replace(answer, bounds=self._bounds(bucket, version))
        return answer

    def explained(self, answer: OperatorNeeded) -> OperatorNeeded:
        """The answer, with advice if the configured version does not fit the server, which is asked again for that."""
        self.forget_flavour()
        try:
            mismatch = version_mismatch(self._config, self._identified())
        except HttpFault:
            return answer
        return msgspec.structs.replace(answer, advice=mismatch) if mismatch else answer

    def _identified(self) -> Flavour:
        """The kind of server; asked once, and again after `forget_flavour`. Raises HttpFault."""
        with self._lock:
            if self._flavour is None:
                self._flavour = self._identify()
                mismatch = version_mismatch(self._config, self._flavour)
                if mismatch and self._mismatches.allows(mismatch, time.monotonic()):
                    self._logger.error("%s: %s", self.url, mismatch)
            return self._flavour

    def _identify(self) -> Flavour:
        """Asks the server. Raises HttpFault; with a configured version only if a write would fail, too."""
        limits = msgspec.structs.replace(limits_of(self._config), max_bytes=BASE_ANSWER_BYTES)
        try:
            return identify(self._client, self.url, self._credentials.header("v2"), limits)
        except HttpFault as fault:
            if self._config.version == "auto" or fault.kind not in ("timeout", "malformed", "too_large"):
                raise
            return UNKNOWN

    def _lossy_lines(self, data: bytes) -> BadLines | None:
        """The lines of which QuestDB would silently lose a part, as if it had refused them; None without one."""
        plain = decompress(data) if self._config.gzip else data
        lines = plain.removesuffix(b"\n").split(b"\n")
        if b'"' in plain:
            lines = [match.group()[:-1] for match in LINE.finditer(plain)]
        found = tuple((number, "", why) for number, line in enumerate(lines, 1)
                      if (why := self._columns.problem(line)))
        return BadLines("not sent", found, reason="refused") if found else None

    def _bounds(self, bucket: str, version: Version) -> Bounds | None:
        """The times that an InfluxDB 1 accepts for a database, by its retention policy; None if it is unknown."""
        if time.monotonic() < self._policies_due.get(bucket, 0.0):
            return None
        database, policy = bucket or self._config.database or self._config.bucket, self._config.retention_policy
        if version == "v2":  # a bucket of InfluxDB 1.8 is database/policy
            database, _, policy = (bucket or self._config.bucket).partition("/")
        url = f"{self.url.rstrip('/')}/query?{urlencode({'db': database, 'q': policies_query(database)})}"
        try:
            reply = self._client.exchange("GET", url, b"", self._credentials.header("v1"), limits_of(self._config))
        except HttpFault:
            return None
        at = seconds_of(reply.headers.get("date", ""))
        found = bounds_of_policy(json_object(reply.body), policy, int(at) * SECOND) if at else None
        if found is None:
            self._policies_due[bucket] = time.monotonic() + POLICY_RETRY_SECONDS
        return found


def _located(answer: BadLines, quoted: tuple[bytes, str], sent: bytes) -> BadLines | UnlocatedBadLines:
    """The answer with the number of the line where its quote of what was sent starts."""
    rest, why = quoted
    if not rest or not sent.endswith(rest):
        return UnlocatedBadLines("refused", answer.message, about_lines=True, status=answer.status)
    number = sent.count(b"\n", 0, len(sent) - len(rest)) + 1
    return msgspec.structs.replace(answer, listed=((number, "", why),), quoted=None)
