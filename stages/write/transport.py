"""Writes over HTTP: one attempt at a time, with failover between the servers of a database."""

import logging
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec

from pipeline.compression import compress, decompress
from pipeline.config.schema import InfluxConfig
from pipeline.errors import PipelineError
from pipeline.logs import RepeatFilter
from stages.influxdb import retention
from stages.influxdb.answers import (
    Answer,
    BadLines,
    OperatorNeeded,
    Retry,
    UnlocatedBadLines,
    classify,
    seconds_of,
)
from stages.influxdb.body import LINE
from stages.influxdb.deadline import Limits
from stages.influxdb.dialect import Columns, adapted
from stages.influxdb.endpoint import write_url
from stages.influxdb.error_body import json_object
from stages.influxdb.failures import answered_by, failure_of, with_advice
from stages.influxdb.flavour import (
    QUESTDB,
    UNKNOWN,
    Flavour,
    Version,
    ask,
    dialect_of,
    keeps_repeats,
    version_mismatch,
    write_version,
)
from stages.influxdb.http_answer import HttpFault
from stages.influxdb.http_client import HttpClient
from stages.influxdb.questdb import TABLES, dedup_warnings, tables_of
from stages.influxdb.retention import Bounds
from stages.influxdb.session import Credentials

#: Seconds for which a failed server is tried last, with several servers.
QUARANTINE_SECONDS = 30.0
#: Default of requests at a time: for servers that answer at once, and for InfluxDB 3, which answers when it flushes.
MAX_IN_FLIGHT, MAX_IN_FLIGHT_V3 = 4, 32
#: Most bytes of an answer: a constant, and a factor of the bytes of the lines, which InfluxDB quotes: in JSON a
#: character may take six bytes.
FREE_BYTES, QUOTED_FACTOR = 1_000_000, 6
#: An InfluxDB 1 that did not report the retention of a database is queried again after this time, seconds.
ASK_SECONDS = 60.0
#: Longest check of a server at the start, seconds.
CHECK_SECONDS = 5.0


def limits_of(config: InfluxConfig, body: bytes = b"") -> Limits:
    """Limits of one request; `body` is what is sent, since an answer may quote every line."""
    connect, read = config.connect_timeout_ms / 1000, config.read_timeout_ms / 1000
    size = int.from_bytes(body[-4:], "little") if config.gzip else len(body)  # RFC 1952, ISIZE
    return Limits(config.request_timeout_ms / 1000 or connect + read, read, connect, FREE_BYTES + QUOTED_FACTOR * size)


class Transport:
    """Writes to one database, at the first of its servers that works. Thread-safe."""

    def __init__(self, config: InfluxConfig, urls: tuple[str, ...], logger: logging.Logger) -> None:
        self.config = config
        self.urls = urls
        self.logger = logger
        self.credentials = Credentials(config)
        self._client = HttpClient(config)
        self._lock = threading.Lock()
        self._flavours: dict[str, Flavour] = {}
        self._quarantined: dict[str, float] = {}
        #: (URL, bucket) whose retention could not be queried -> when to query again.
        self._unanswered: dict[tuple[str, str], float] = {}
        self._complaints = RepeatFilter(60.0)
        self._columns = Columns()

    @property
    def most_requests(self) -> int:
        """Most requests in flight, as far as the servers are known."""
        if self.config.max_requests_in_flight:
            return self.config.max_requests_in_flight
        gathers = self.config.version == "v3" or any(found.api == "v3" for found in list(self._flavours.values()))
        return MAX_IN_FLIGHT_V3 if gathers else MAX_IN_FLIGHT

    @property
    def may_repeat(self) -> bool:
        """Whether stored lines may be written once more, as far as the servers are known."""
        if self.config.repeat_writes != "auto":
            return self.config.repeat_writes == "yes"
        return not any(keeps_repeats(found) for found in list(self._flavours.values()))

    def post(self, data: bytes, bucket: str, escapes: bool = False) -> Answer:
        """Writes to the server that is most likely to work, and to the next ones after a failure.

        `escapes`: the body has a backslash, or a line break in a string. The message of a Retry or OperatorNeeded has
        the URL and what to do.
        """
        now = time.monotonic()
        answer: Answer = Retry("no_connection", "no server")
        for url in sorted(self.urls, key=lambda u: self._quarantined.get(u, 0.0) > now):
            answer = self._post_to(url, data, bucket, escapes)
            if not isinstance(answer, Retry | OperatorNeeded):
                self._quarantined.pop(url, None)
                return answer
            if len(self.urls) > 1:
                self._quarantined[url] = time.monotonic() + QUARANTINE_SECONDS
        return answer

    def _post_to(self, url: str, data: bytes, bucket: str, escapes: bool) -> Answer:
        try:
            answer = self._attempt(url, data, bucket, escapes)
            if isinstance(answer, OperatorNeeded) and answer.reason == "unauthorized" and self.credentials.reload():
                self.logger.info("influxdb.token_file has a new token; retrying with it")
                self._flavours.clear()
                answer = self._attempt(url, data, bucket, escapes)
            if isinstance(answer, OperatorNeeded) and answer.reason != "unauthorized":
                answer = self._explained(url, answer)
        except HttpFault as fault:
            answer = failure_of(fault, url)
        except PipelineError as error:
            answer = OperatorNeeded("unauthorized", str(error))
        if isinstance(answer, Retry | OperatorNeeded):
            # Another server may answer a new connection: a name may have several servers, or a route may have changed.
            self._client.disconnect()
            return with_advice(answer, "write")
        return answer

    def _attempt(self, url: str, data: bytes, bucket: str, escapes: bool) -> Answer:
        """Sends one request. Raises HttpFault."""
        flavour = self._flavour(url) if self.config.version != "v3" else None
        version, dialect = write_version(self.config, flavour), dialect_of(self.config, flavour)
        if dialect == "questdb" and (lost := self._lost(data)):
            return lost
        if dialect == "questdb" or escapes and dialect != "influxdb":
            plain = decompress(data) if self.config.gzip else data
            if (for_it := adapted(plain, dialect)) is not plain:
                data = compress(for_it) if self.config.gzip else for_it
        target = write_url(self.config, url, version, bucket)
        headers = {"Content-Type": "text/plain; charset=utf-8", "Accept": "application/json",
                   **({"Content-Encoding": "gzip"} if self.config.gzip else {}), **self.credentials.header(version)}
        reply = self._client.exchange("POST", target, data, headers, limits_of(self.config, data))
        answer = classify(reply.status, reply.headers, reply.body, time.time(), version)
        if isinstance(answer, Retry | OperatorNeeded):
            return answered_by(answer, target)
        if isinstance(answer, BadLines) and answer.quoted is not None:
            return _located(answer, answer.quoted, decompress(data) if self.config.gzip else data)
        if isinstance(answer, UnlocatedBadLines) and answer.reason == "outside_retention" and not answer.bounds and (
                version == "v1" or flavour is not None and flavour.api == "v1"):
            return msgspec.structs.replace(answer, bounds=self._bounds(url, bucket, version))
        return answer

    def _asked(self, url: str, limits: Limits) -> Flavour:
        """Detects the server. Raises HttpFault; with a configured version only for faults that prevent writes, too."""
        try:
            return ask(self._client, url, self.credentials.header("v2"), limits)
        except HttpFault as fault:
            if self.config.version == "auto" or fault.kind not in ("timeout", "malformed", "too_large"):
                raise
            return UNKNOWN

    def _lost(self, data: bytes) -> BadLines | None:
        """The lines of which QuestDB would silently drop a part, in the form of a refusal."""
        plain = decompress(data) if self.config.gzip else data
        lines = plain.removesuffix(b"\n").split(b"\n")
        if b'"' in plain:
            lines = [match.group()[:-1] for match in LINE.finditer(plain)]
        found = tuple((number, "", why) for number, line in enumerate(lines, 1)
                      if (why := self._columns.unwritable(line)))
        return BadLines("not sent", found, reason="refused") if found else None

    def _bounds(self, url: str, bucket: str, version: Version) -> Bounds | None:
        """The times that an InfluxDB 1 accepts for a database, by a query; None if it does not report them."""
        if time.monotonic() < self._unanswered.get((url, bucket), 0.0):
            return None
        database, policy = bucket or self.config.database or self.config.bucket, self.config.retention_policy
        if version == "v2":  # a bucket of InfluxDB 1.8 is database/policy
            database, _, policy = (bucket or self.config.bucket).partition("/")
        query = urlencode({"db": database, "q": retention.policies_query(database)})
        try:
            reply = self._client.exchange("GET", f"{url.rstrip('/')}/query?{query}", b"", self.credentials.header("v1"),
                                          limits_of(self.config))
        except HttpFault:
            return None
        at = seconds_of(reply.headers.get("date", ""))
        found = at and retention.queried_bounds(json_object(reply.body), policy, int(at) * retention.SECOND)
        if not found:
            self._unanswered[url, bucket] = time.monotonic() + ASK_SECONDS
        return found or None

    def _explained(self, url: str, answer: OperatorNeeded) -> OperatorNeeded:
        """The answer with the advice for the server at `url`, which is detected again because it may be another one."""
        with self._lock:
            self._flavours.pop(url, None)
        try:
            wrong = version_mismatch(self.config, self._flavour(url))
        except HttpFault:
            return answer
        return msgspec.structs.replace(answer, advice=wrong) if wrong else answer

    def _flavour(self, url: str) -> Flavour:
        """The kind of server at `url`. Raises HttpFault."""
        with self._lock:
            if url not in self._flavours:
                limits = msgspec.structs.replace(limits_of(self.config), max_bytes=FREE_BYTES)
                flavour = self._asked(url, limits)
                wrong = version_mismatch(self.config, flavour)
                if wrong and self._complaints.allows(wrong, time.monotonic()):
                    self.logger.error("%s: %s", url, wrong)
                self._flavours[url] = flavour
            return self._flavours[url]


def _located(answer: BadLines, quoted: tuple[bytes, str], sent: bytes) -> BadLines | UnlocatedBadLines:
    """The answer with the number of the bad line, found by the part of `sent` that the answer quotes."""
    rest, why = quoted
    if not rest or not sent.endswith(rest):
        return UnlocatedBadLines("refused", answer.message, about_lines=True, status=answer.status)
    number = sent.count(b"\n", 0, len(sent) - len(rest)) + 1
    return msgspec.structs.replace(answer, listed=((number, "", why),), quoted=None)


def describe(config: InfluxConfig, logger: logging.Logger, measurement: str = "") -> None:
    """Logs at the start which server answers, and what is wrong with the configured version for it.

    `measurement`: the one that is written; "" if there may be several.
    """
    client = HttpClient(config)
    try:
        credentials = Credentials(config).header("v2")
    except PipelineError:  # the writers stop with it
        credentials = {}
    if config.insecure_skip_verify:
        logger.warning("influxdb.insecure_skip_verify: TLS certificates are not verified: traffic can be intercepted "
                       "and altered. Set ca_file instead")
    limits = Limits(CHECK_SECONDS, connect=min(CHECK_SECONDS, config.connect_timeout_ms / 1000))
    for url in config.servers():
        try:
            flavour = ask(client, url, credentials, limits)
        except HttpFault as fault:
            logger.warning("%s; starting anyway, and retrying until it answers",
                           with_advice(failure_of(fault, url), "write").message)
            continue
        wrong = version_mismatch(config, flavour)
        version = write_version(config, flavour)
        logger.log(logging.ERROR if wrong else logging.INFO, "%s is %s; writing to %s%s", url, flavour,
                   write_url(config, url, version), f". But {wrong}" if wrong else "")
        if flavour.product == QUESTDB and config.repeat_writes != "yes":
            for warning in dedup_warnings(_tables(client, url, credentials, limits), measurement):
                logger.warning("%s: %s", url, warning)


def _tables(client: HttpClient, url: str, credentials: Mapping[str, str], limits: Limits) -> dict[str, bool] | None:
    """Table of a QuestDB -> whether it has DEDUP; None if it does not report them."""
    target = f"{url.rstrip('/')}/exec?{urlencode({'query': TABLES})}"
    try:
        reply = client.exchange("GET", target, b"", credentials, limits)
    except HttpFault:
        return None
    return tables_of(json_object(reply.body))
