"""Classifies the answer to a write. Pure; `tests/data/answers.toml` has recorded answers of real servers.

Patterns match at the beginning or the end of the server's message only, because names and values of lines, which it
quotes, may contain any text. Sources: recorded answers of InfluxDB OSS 2.7.12 and 1.6.7, of InfluxDB 3 Core 3.9.6 at
its three endpoints, of QuestDB 9.3.4, and of VictoriaMetrics 1.151 and 1.79.
"""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from stages.influxdb import error_body
from stages.influxdb.error_body import ErrorBody
from stages.influxdb.flavour import Version
from stages.influxdb.retention import Bounds, reported_bounds


class Accepted(Struct, frozen=True):
    """Every line is stored."""


class BadLines(Struct, frozen=True):
    """The server identifies the lines that it refuses."""

    #: The server's message; it quotes lines as `unable to parse '<line>': <why>`, unless `listed`.
    message: str
    #: (number of the line in the request, from 1; the line or its beginning; why) of each line that the server lists.
    listed: tuple[tuple[int, str, str], ...] = ()
    #: The other lines of the request are stored.
    rest_stored: bool = False
    #: Only the first bad line is named, and nothing is stored.
    first: bool = False
    #: The request from the bad line on, and why (VictoriaMetrics); the position has to be found in what was sent.
    quoted: tuple[bytes, str] | None = None
    #: The reject reason; "": derived from each line's message.
    reason: str = ""
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class UnlocatedBadLines(Struct, frozen=True):
    """Some lines are refused, and the server does not identify them."""

    #: type_conflict, outside_retention or refused.
    reason: str
    message: str
    #: Number of refused lines, if the server reports it.
    dropped: int | None = None
    #: The message is about lines. Otherwise the request as a whole may be refused.
    about_lines: bool = False
    #: With outside_retention, the times that are accepted, if known.
    bounds: Bounds | None = None
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class TooLarge(Struct, frozen=True):
    """The request's body exceeds the server's limit."""

    message: str
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class OperatorNeeded(Struct, frozen=True):
    """Nothing can be written until an operator corrects something: credentials, a bucket, the URL."""

    reason: Literal["unauthorized", "not_found", "refused"]
    message: str
    #: What to do; "": the advice of `failures.with_advice` for the reason.
    advice: str = ""
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class Retry(Struct, frozen=True):
    """The request has to be sent again later."""

    reason: Literal["rate_limited", "unavailable", "server_error", "timeout", "no_connection"]
    message: str
    #: How long the server asks to wait, seconds.
    after: float | None = None
    #: The cause may be a line of this request rather than the server's state.
    suspect: bool = False
    #: Number of that line in the request, from 1; 0: unknown.
    line: int = 0
    #: What to do if the error persists, if known.
    advice: str = ""
    #: HTTP status; 0 where there was no answer.
    status: int = 0


Answer = Accepted | BadLines | UnlocatedBadLines | TooLarge | OperatorNeeded | Retry


class _Setup(NamedTuple):
    """A message about a request as a whole, matched from its beginning, and its meaning."""

    pattern: str
    reason: Literal["unauthorized", "not_found", "refused"]
    advice: str


_ENCODING_ADVICE = "a proxy changes the bodies, or their Content-Encoding: correct it, or set gzip = false"
_ENDPOINT_ADVICE = "the server has no such endpoint: correct url (host, port, path), or version"
_QUESTDB = r"failed to parse line protocol:errors encountered on line\(s\):"
#: Servers' messages about a request as a whole, with 400, 404, 415, 422 and 500.
_SETUPS = (
    _Setup(r"database is required|missing db\Z|no db destination provided", "refused", "set influxdb.database"),
    _Setup("invalid consistency level", "refused", "correct influxdb.consistency"),
    _Setup("retention policy not found: ", "not_found", "create the retention policy, or correct "
           "influxdb.retention_policy"),
    _Setup("no dbrp mapping found", "not_found", "map the database and retention policy to a bucket (influx v1 dbrp "
           'create), or write to the bucket with version = "v2"'),
    _Setup("(query error: )?database not found|database name", "not_found", "create the database, or correct "
           "influxdb.database"),
    _Setup("Please provide either orgID or org|org id is required", "refused", "set influxdb.org, or org_id"),
    _Setup(r"id must have a length of 16 bytes|invalid ID\Z", "refused", "correct influxdb.org_id: 16 hexadecimal "
           "digits, as in the URL of InfluxDB's own pages; or set org, the organization's name, instead"),
    _Setup("organization ", "not_found", "correct influxdb.org, or org_id"),
    _Setup("bucket .*not found|bucket is required|missing bucket value", "not_found", "create the bucket, or correct "
           "influxdb.bucket"),
    _Setup(rf"invalid precision; |error parsing precision|{_QUESTDB}unsupported precision\Z", "refused", "this server "
           "does not accept the precision as this version of the API spells it: set another version"),
    _Setup(rf"{_QUESTDB}gzip encoding is not supported", "refused", "this QuestDB supports no gzip: set gzip = false"),
    _Setup(rf"{_QUESTDB}\nerror in line [0-9]+: table: [^;]*; cannot insert in non-WAL table\Z", "refused",
           "create the table again with WAL: QuestDB accepts lines over HTTP only for such tables"),
    _Setup(rf"{_QUESTDB}\nerror in line [0-9]+: table: [^;]*; table does not exist, (creating new tables is "
           r"disabled|cannot create table, creating new columns is disabled)\Z", "not_found", "create the table, or "
           "set line.auto.create.new.tables and line.auto.create.new.columns"),
    _Setup("serde error: |failed to deserialize |missing query parameter", "refused", "set database, and a version "
           "that this server has"),
    _Setup("db name |namespace name |invalid character in database or rp name", "refused", "correct influxdb.database: "
           "letters, digits, _, / and -, a letter or digit first"),
    _Setup("(write buffer error: catalog update error: )?Adding a new database would exceed limit", "refused",
           "write to an existing database, or delete one"),
    _Setup("Authorization header was malformed", "unauthorized", "correct the token (or token_file): it contains an "
           "invalid character"),
    _Setup(rf"gzip: |zlib: |(unexpected )?EOF\Z|unable to read data: |(write buffer error: )?error decoding gzip stream"
           rf"|unacceptable content-encoding|{_QUESTDB}gzip decompression error\Z", "refused", _ENCODING_ADVICE),
    _Setup("(write buffer error: )?incoming write was empty", "refused", _ENCODING_ADVICE),
    _Setup(r"(remoteAddr: [^;]*; requestURI: [^;]*; )?unsupported path requested: |path not found\Z|404 page not found"
           "|no assets included in binary", "not_found", _ENDPOINT_ADVICE),
    _Setup("Client sent an HTTP request to an HTTPS server|.{0,2000}The plain HTTP request was sent to HTTPS port",
           "refused", "the server uses TLS on this port: write https:// in url"),
)
_SETUP_PATTERNS = [(re.compile(setup.pattern, re.DOTALL), setup) for setup in _SETUPS]
#: InfluxDB 1 and 2: a prefix of an upper layer, the error, and the number of dropped lines. Names in it are not quoted,
#: so only its beginning and its end are reliable.
_PARTIAL = re.compile(
    r"(?:failure writing points to database: |unexpected error writing points to database: )?partial write: "
    r"(?P<why>.*) dropped=(?P<dropped>[0-9]{1,9})(?: for database: \S+ for retention policy: [^\n]*)?",
    re.DOTALL)
#: InfluxDB 1 and 2 quote lines.
_NAMED = re.compile(r"(?P<partial>partial write: )?unable to parse '")
#: InfluxDB 3 lists them.
_LISTED = "partial write of line protocol occurred"
#: Messages about lines that are not identified: InfluxDB 3 at its three endpoints, its hosted editions, QuestDB.
_ABOUT_LINES = re.compile("(write buffer error: )?line protocol parse failed: |parsing failed for write_lp endpoint"
                          r"|failed to parse line protocol:|partial write|field type conflict\Z"
                          "|(dml handler error: )?data in table ")
#: VictoriaMetrics, in plain text.
_VICTORIA_LINE = re.compile(r'cannot process influx line protocol data: incorrect influx line (?P<quoted>"(?:[^"\\]|'
                            r'\\.)*+"): (?P<why>.*)', re.DOTALL)
_SEE = re.compile(r"; see https://docs\.victoriametrics\.com/\S*\Z")
#: QuestDB's message about a line.
_QUESTDB_LINE = re.compile(rf"{_QUESTDB}\nerror in line [0-9]+: (?P<why>.*)", re.DOTALL)
#: InfluxDB Enterprise queues the lines for an unavailable node: they are accepted. Source: telegraf,
#: `plugins/outputs/influxdb/http.go`.
_QUEUED = re.compile("(write failed: )?hinted handoff queue not empty")
#: InfluxDB 3's message about a body over its limit, with 500.
_TOO_LARGE = re.compile(r"max request size \([0-9]+ bytes\) exceeded")
_CAST = re.compile(r"table: .*, column: .*; cast error from protocol type: [A-Z0-9_]+ to column type: "
                   r"[A-Z0-9_()\[\], ]+", re.DOTALL)
_TYPE_CONFLICT = re.compile(r"field type conflict(: |\Z)|invalid column type for column |column type |conflicting types"
                            "|incompatible type")
_RETENTION = re.compile("points beyond retention policy|dropped [0-9]+ points outside retention policy"
                        "|(dml handler error: )?data .*(older than|outside of)( the)? retention")
#: Prefix of the error of a line, in an answer of InfluxDB 3 that identifies none.
_BEFORE_WHY = re.compile("(write buffer error: )?line protocol parse failed: ")
#: InfluxDB 1's messages about its own state, independent of the lines.
_STATE = re.compile(r"timeout\Z|(write failed: )?(engine: )?cache-max-memory-size exceeded|engine: cache")
_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def retry_after(value: str | None, now: float, date: str | None = None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date.

    A date is relative to the answer's Date header, `date`, or to `now` (seconds since 1970) without one.
    """
    if not value:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return max(0.0, float(value))
    until = seconds_of(value)
    if until is None:
        return None
    base = seconds_of(date) if date else None
    return max(0.0, until - (now if base is None else base))


def seconds_of(date: str) -> float | None:
    """Seconds since 1970 of an HTTP date, which is always UTC; None for an invalid one."""
    try:
        found = parsedate_to_datetime(date)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def classify(status: int, headers: Mapping[str, str], body: bytes, now: float,
             version: Version | None = None) -> Answer:
    """Classifies an HTTP answer to a write. Keys of `headers` are in lower case.

    `now` in seconds since 1970, for a Retry-After with a date. `version`: the API that was written to; 200 means
    success only with those that answer it.
    """
    parsed = error_body.parse(headers, body)
    if status == 204 or status == 200 and not body.strip() and _answers_200(headers, version):
        return Accepted()
    if status in (500, 503) and parsed.own and _QUEUED.fullmatch(parsed.message):
        return Accepted()
    answer = _success(status, parsed) if 200 <= status < 300 else _failure(status, headers, parsed, now)
    return answer if isinstance(answer, Accepted) else msgspec.structs.replace(answer, status=status)


def _answers_200(headers: Mapping[str, str], version: Version | None) -> bool:
    """Whether an empty 200 means success: early versions of InfluxDB 3, and QuestDB."""
    return version == "v3" or headers.get("server", "").lower().startswith("questdb")


def _success(status: int, parsed: ErrorBody) -> BadLines | OperatorNeeded:
    """Classifies a 2xx that is no InfluxDB's success: a login page, or a JSON object with an error."""
    if parsed.own:
        refusal = _refusal(parsed, f"{status} {parsed.shown}")
        if isinstance(refusal, BadLines):
            return refusal
    return OperatorNeeded("refused", f"{status} {parsed.shown}",
                          "no InfluxDB acknowledges a write in this way: correct the URL; a proxy or login page may "
                          "have answered")


def _failure(status: int, headers: Mapping[str, str], parsed: ErrorBody,
             now: float) -> BadLines | UnlocatedBadLines | TooLarge | OperatorNeeded | Retry:
    text = f"{status} {parsed.shown}".strip()
    if status in (400, 422):
        return _refusal(parsed, text)
    if status == 413 and parsed.own and parsed.line:
        return BadLines(text, ((parsed.line, "", parsed.message),), first=True, reason="too_large")
    if status == 413 or status == 500 and _TOO_LARGE.match(parsed.message):
        return TooLarge(text)
    if status in (401, 403):
        if parsed.own and reported_bounds(parsed.message):  # InfluxDB Cloud Serverless
            return _unlocated(parsed.message, text)
        return OperatorNeeded("unauthorized", text)
    setup = _setup(parsed)
    if status in (404, 405, 501):
        advice = setup.advice if setup else _ENDPOINT_ADVICE
        return OperatorNeeded("not_found" if status == 404 else "refused", text, advice)
    if 300 <= status < 400:
        place = error_body.one_line(headers.get("location", "another place"))
        return OperatorNeeded("refused", f"{status} redirects to {place}", "correct url: redirects are not followed")
    after = retry_after(headers.get("retry-after"), now, headers.get("date"))
    if status in (408, 425, 429):
        return Retry("rate_limited" if status == 429 else "timeout", text, after)
    if status < 500:
        return OperatorNeeded("refused", text, setup.advice if setup else "")
    return _server_error(status, parsed, text, after)


def _refusal(parsed: ErrorBody, text: str) -> BadLines | UnlocatedBadLines | OperatorNeeded:
    """Classifies a 400 or 422."""
    message = parsed.message
    if not parsed.own:
        setup = _setup(parsed)
        if setup:
            return OperatorNeeded(setup.reason, text, setup.advice)
        if victoria := _VICTORIA_LINE.fullmatch(message):
            why = _SEE.sub("", victoria["why"])
            return BadLines(text, first=True, quoted=(unquoted(victoria["quoted"]), why))
        return OperatorNeeded("refused", text,
                              "no InfluxDB refuses lines in this way: correct the URL (https:// or http://, host, "
                              "port, path), or the proxy that answered")
    if parsed.listed:
        return BadLines(text, parsed.listed, message == _LISTED)
    if named := _NAMED.match(message):
        return BadLines(message, rest_stored=named["partial"] is not None)
    setup = _setup(parsed)
    if setup:
        return OperatorNeeded(setup.reason, text, setup.advice)
    if parsed.line and (numbered := _QUESTDB_LINE.fullmatch(message)):
        return BadLines(text, ((parsed.line, "", numbered["why"]),), first=True)
    return _unlocated(message, text)


_GO_ESCAPE = re.compile(r'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))', re.DOTALL)
_GO_CHARACTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def unquoted(text: str) -> bytes:
    """The bytes that Go's strconv.Quote has quoted."""
    def character(match: re.Match[str]) -> str:
        byte, four, eight, one = match.groups()
        if byte:
            return bytes([int(byte, 16)]).decode("utf-8", "surrogateescape")
        if one:
            return _GO_CHARACTERS.get(one, one)
        number = int(four or eight, 16)
        return chr(number) if number <= 0x10ffff else "\ufffd"

    return _GO_ESCAPE.sub(character, text[1:-1]).encode("utf-8", "surrogateescape")


def _setup(parsed: ErrorBody) -> _Setup | None:
    return next((setup for pattern, setup in _SETUP_PATTERNS if pattern.match(parsed.message)), None)


def _unlocated(message: str, text: str) -> UnlocatedBadLines:
    partial, before = _PARTIAL.fullmatch(message), _BEFORE_WHY.match(message)
    why = partial["why"] if partial else message[before.end():] if before else message
    reason = _reason(why, "refused")
    return UnlocatedBadLines(reason, text, int(partial["dropped"]) if partial else None,
                        about_lines=bool(partial or _ABOUT_LINES.match(message)),
                        bounds=reported_bounds(message) if reason == "outside_retention" else None)


def _server_error(status: int, parsed: ErrorBody, text: str,
                  after: float | None) -> UnlocatedBadLines | OperatorNeeded | Retry:
    """Classifies a 5xx, and invalid statuses."""
    if status == 503:
        return Retry("unavailable", text, after)
    if parsed.own and _PARTIAL.fullmatch(parsed.message):
        return _unlocated(parsed.message, text)
    if setup := _setup(parsed):
        return OperatorNeeded(setup.reason, text, setup.advice)
    return Retry("server_error", text, after, suspect=status == 500 and not _STATE.match(parsed.message),
                 line=parsed.line if re.match(_QUESTDB, parsed.message) else 0)


def line_reason(why: str) -> str:
    """The reject reason of one line that the server refuses with this message."""
    return _reason(why, "parse_error")


def _reason(why: str, otherwise: str) -> str:
    if _TYPE_CONFLICT.match(why) or _CAST.fullmatch(why):
        return "type_conflict"
    return "outside_retention" if _RETENTION.match(why) else otherwise
