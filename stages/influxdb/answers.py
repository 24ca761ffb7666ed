"""What an answer to a write means. Pure; `tests/data/answers.toml` holds what real servers said.

Only a server's own words at their own place count: patterns are matched from the beginning of its message, or at its
end, since names and values of lines, which it quotes, may hold any text. Sources: recorded answers of InfluxDB OSS
2.7.12 and 1.6.7, of InfluxDB 3 Core 3.9.6 at its three endpoints, of QuestDB 9.3.4 and VictoriaMetrics 1.151 and 1.79.
"""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from stages.influxdb import body_words
from stages.influxdb.body_words import Said
from stages.influxdb.flavour import Version
from stages.influxdb.retention import Bounds, told


class Accepted(Struct, frozen=True):
    """Every line is stored."""


class BadLines(Struct, frozen=True):
    """The server names the lines that it refuses."""

    #: Its words; lines are quoted in them as `unable to parse '<line>': <why>`, unless `listed`.
    message: str
    #: (number of the line in the request, from 1, the line or the beginning of it, why), where the server lists them.
    listed: tuple[tuple[int, str, str], ...] = ()
    #: The other lines of the request are stored.
    rest_stored: bool = False
    #: Only the first bad line is named, and nothing is stored.
    first: bool = False
    #: The request from the bad line on, and why, as VictoriaMetrics has it; to be found in what was sent.
    quoted: tuple[bytes, str] | None = None
    #: What they are refused for; "": as their words say.
    reason: str = ""
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class UnlocatedBadLines(Struct, frozen=True):
    """Some lines are refused, and the server does not say which."""

    #: type_conflict, outside_retention or refused.
    reason: str
    message: str
    #: How many, where it says so.
    dropped: int | None = None
    #: These are a server's own words about lines. Else it may be the request as a whole that is refused.
    about_lines: bool = False
    #: With outside_retention, the times that are taken, where that is known.
    bounds: Bounds | None = None
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class TooLarge(Struct, frozen=True):
    """The request's body is over the server's limit."""

    message: str
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class OperatorNeeded(Struct, frozen=True):
    """Nothing can be written before somebody has mended something: credentials, a bucket, the URL."""

    reason: Literal["unauthorized", "not_found", "refused"]
    message: str
    #: What to do; "": as `failures.with_advice` has it for the reason.
    advice: str = ""
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class Retry(Struct, frozen=True):
    """To be tried again later."""

    reason: Literal["rate_limited", "unavailable", "server_error", "timeout", "no_connection"]
    message: str
    #: How long the server asks to wait, seconds.
    after: float | None = None
    #: The cause may be a line of this request rather than the server's state.
    suspect: bool = False
    #: Number of that line in the request, from 1; 0: not known.
    line: int = 0
    #: What to do if it stays so, where that is known.
    advice: str = ""
    #: HTTP status; 0 where there was no answer.
    status: int = 0


Answer = Accepted | BadLines | UnlocatedBadLines | TooLarge | OperatorNeeded | Retry


class _Setup(NamedTuple):
    """Words about a request as a whole, from the beginning of a message, and what they mean."""

    pattern: str
    reason: Literal["unauthorized", "not_found", "refused"]
    advice: str


_ENCODING_ADVICE = "something on the way changes the bodies, or their Content-Encoding: correct it, or set gzip = false"
_ENDPOINT_ADVICE = "it has no such endpoint: correct url (host, port, path), or version"
_QUESTDB = r"failed to parse line protocol:errors encountered on line\(s\):"
#: What servers say of a request as a whole, with 400, 404, 415, 422 and 500.
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
           "does not take the precision as this version of the API spells it: set another version"),
    _Setup(rf"{_QUESTDB}gzip encoding is not supported", "refused", "this QuestDB reads no gzip: set gzip = false"),
    _Setup(rf"{_QUESTDB}\nerror in line [0-9]+: table: [^;]*; cannot insert in non-WAL table\Z", "refused",
           "make the table anew with WAL: QuestDB takes lines over HTTP only into such ones"),
    _Setup(rf"{_QUESTDB}\nerror in line [0-9]+: table: [^;]*; table does not exist, (creating new tables is "
           r"disabled|cannot create table, creating new columns is disabled)\Z", "not_found", "create the table, or "
           "set line.auto.create.new.tables and line.auto.create.new.columns"),
    _Setup("serde error: |failed to deserialize |missing query parameter", "refused", "set database, and a version "
           "that this server has"),
    _Setup("db name |namespace name |invalid character in database or rp name", "refused", "correct influxdb.database: "
           "letters, digits, _, / and -, a letter or digit first"),
    _Setup("(write buffer error: catalog update error: )?Adding a new database would exceed limit", "refused",
           "write to a database that is there, or delete one"),
    _Setup("Authorization header was malformed", "unauthorized", "correct the token (or token_file): it has a "
           "character that no token has"),
    _Setup(rf"gzip: |zlib: |(unexpected )?EOF\Z|unable to read data: |(write buffer error: )?error decoding gzip stream"
           rf"|unacceptable content-encoding|{_QUESTDB}gzip decompression error\Z", "refused", _ENCODING_ADVICE),
    _Setup("(write buffer error: )?incoming write was empty", "refused", _ENCODING_ADVICE),
    _Setup(r"(remoteAddr: [^;]*; requestURI: [^;]*; )?unsupported path requested: |path not found\Z|404 page not found"
           "|no assets included in binary", "not_found", _ENDPOINT_ADVICE),
    _Setup("Client sent an HTTP request to an HTTPS server|.{0,2000}The plain HTTP request was sent to HTTPS port",
           "refused", "it speaks TLS on this port: write https:// in url"),
)
_SETUP_PATTERNS = [(re.compile(setup.pattern, re.DOTALL), setup) for setup in _SETUPS]
#: InfluxDB 1 and 2: a prefix of a layer above, what went wrong, and how many lines were dropped. Names in it are not
#: quoted in any way, so that only its beginning and its end are known.
_PARTIAL = re.compile(
    r"(?:failure writing points to database: |unexpected error writing points to database: )?partial write: "
    r"(?P<why>.*) dropped=(?P<dropped>[0-9]{1,9})(?: for database: \S+ for retention policy: [^\n]*)?",
    re.DOTALL)
#: InfluxDB 1 and 2 name lines.
_NAMED = re.compile(r"(?P<partial>partial write: )?unable to parse '")
#: InfluxDB 3 lists them.
_LISTED = "partial write of line protocol occurred"
#: What servers say of lines that they don't name: InfluxDB 3 at its three endpoints, and its hosted kinds; QuestDB.
_ABOUT_LINES = re.compile("(write buffer error: )?line protocol parse failed: |parsing failed for write_lp endpoint"
                          r"|failed to parse line protocol:|partial write|field type conflict\Z"
                          "|(dml handler error: )?data in table ")
#: VictoriaMetrics, in plain text.
_VICTORIA_LINE = re.compile(r'cannot process influx line protocol data: incorrect influx line (?P<quoted>"(?:[^"\\]|'
                            r'\\.)*+"): (?P<why>.*)', re.DOTALL)
_SEE = re.compile(r"; see https://docs\.victoriametrics\.com/\S*\Z")
#: QuestDB's words for a line.
_QUESTDB_LINE = re.compile(rf"{_QUESTDB}\nerror in line [0-9]+: (?P<why>.*)", re.DOTALL)
#: InfluxDB Enterprise keeps the lines for a node that is away: they are accepted. Source: telegraf,
#: `plugins/outputs/influxdb/http.go`.
_QUEUED = re.compile("(write failed: )?hinted handoff queue not empty")
#: InfluxDB 3's words for a body over its limit, with 500.
_TOO_LARGE = re.compile(r"max request size \([0-9]+ bytes\) exceeded")
_CAST = re.compile(r"table: .*, column: .*; cast error from protocol type: [A-Z0-9_]+ to column type: "
                   r"[A-Z0-9_()\[\], ]+", re.DOTALL)
_TYPE_CONFLICT = re.compile(r"field type conflict(: |\Z)|invalid column type for column |column type |conflicting types"
                            "|incompatible type")
_RETENTION = re.compile("points beyond retention policy|dropped [0-9]+ points outside retention policy"
                        "|(dml handler error: )?data .*(older than|outside of)( the)? retention")
#: Before what is wrong with a line, in an answer of InfluxDB 3 that names none.
_BEFORE_WHY = re.compile("(write buffer error: )?line protocol parse failed: ")
#: InfluxDB 1's words for a state of its own, whatever the lines are.
_STATE = re.compile(r"timeout\Z|(write failed: )?(engine: )?cache-max-memory-size exceeded|engine: cache")
_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def retry_after(value: str | None, now: float, date: str | None = None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date.

    A date counts from the answer's own, the Date header `date`, or from `now` (seconds since 1970) without one.
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
    """Of an HTTP date, since 1970; it is in UTC whatever it says."""
    try:
        found = parsedate_to_datetime(date)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def classify(status: int, headers: Mapping[str, str], body: bytes, now: float,
             version: Version | None = None) -> Answer:
    """The meaning of an HTTP answer to a write. `headers` by names in lower case.

    `now` in seconds since 1970, for a Retry-After that is a date. `version`: the API that was written to; a 200 means
    success only where it is known to.
    """
    said = body_words.understand(headers, body)
    if status == 204 or status == 200 and not body.strip() and _answers_200(headers, version):
        return Accepted()
    if status in (500, 503) and said.own and _QUEUED.fullmatch(said.message):
        return Accepted()
    answer = _success(status, said) if 200 <= status < 300 else _failure(status, headers, said, now)
    return answer if isinstance(answer, Accepted) else msgspec.structs.replace(answer, status=status)


def _answers_200(headers: Mapping[str, str], version: Version | None) -> bool:
    """Whether an empty 200 is how this one says that all is stored: InfluxDB 3 early on, and QuestDB."""
    return version == "v3" or headers.get("server", "").lower().startswith("questdb")


def _success(status: int, said: Said) -> BadLines | OperatorNeeded:
    """Of a 2xx that is no success of any InfluxDB: a login page, or a JSON object with an error in it."""
    if said.own:
        refusal = _refusal(said, f"{status} {said.shown}")
        if isinstance(refusal, BadLines):
            return refusal
    return OperatorNeeded("refused", f"{status} {said.shown}",
                          "that is not how an InfluxDB says that it has stored something: "
                  "correct the URL; a proxy or login page may stand in between")


def _failure(status: int, headers: Mapping[str, str], said: Said,
             now: float) -> BadLines | UnlocatedBadLines | TooLarge | OperatorNeeded | Retry:
    words = f"{status} {said.shown}".strip()
    if status in (400, 422):
        return _refusal(said, words)
    if status == 413 and said.own and said.line:
        return BadLines(words, ((said.line, "", said.message),), first=True, reason="too_large")
    if status == 413 or status == 500 and _TOO_LARGE.match(said.message):
        return TooLarge(words)
    if status in (401, 403):
        if said.own and told(said.message):  # InfluxDB Cloud Serverless
            return _somewhere(said.message, words)
        return OperatorNeeded("unauthorized", words)
    setup = _setup(said)
    if status in (404, 405, 501):
        advice = setup.advice if setup else _ENDPOINT_ADVICE
        return OperatorNeeded("not_found" if status == 404 else "refused", words, advice)
    if 300 <= status < 400:
        place = body_words.one_line(headers.get("location", "another place"))
        return OperatorNeeded("refused", f"{status} redirects to {place}", "correct url: redirects are not followed")
    after = retry_after(headers.get("retry-after"), now, headers.get("date"))
    if status in (408, 425, 429):
        return Retry("rate_limited" if status == 429 else "timeout", words, after)
    if status < 500:
        return OperatorNeeded("refused", words, setup.advice if setup else "")
    return _server_error(status, said, words, after)


def _refusal(said: Said, words: str) -> BadLines | UnlocatedBadLines | OperatorNeeded:
    """Of a 400 or 422."""
    message = said.message
    if not said.own:
        setup = _setup(said)
        if setup:
            return OperatorNeeded(setup.reason, words, setup.advice)
        if victoria := _VICTORIA_LINE.fullmatch(message):
            why = _SEE.sub("", victoria["why"])
            return BadLines(words, first=True, quoted=(unquoted(victoria["quoted"]), why))
        return OperatorNeeded("refused", words,
                              "that is not how an InfluxDB refuses lines: correct the URL (https:// or "
                      "http://, host, port, path), or what stands in between")
    if said.listed:
        return BadLines(words, said.listed, message == _LISTED)
    if named := _NAMED.match(message):
        return BadLines(message, rest_stored=named["partial"] is not None)
    setup = _setup(said)
    if setup:
        return OperatorNeeded(setup.reason, words, setup.advice)
    if said.line and (numbered := _QUESTDB_LINE.fullmatch(message)):
        return BadLines(words, ((said.line, "", numbered["why"]),), first=True)
    return _somewhere(message, words)


_GO_ESCAPE = re.compile(r'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))', re.DOTALL)
_GO_CHARACTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def unquoted(text: str) -> bytes:
    """What Go's strconv.Quote has put in quotes."""
    def character(match: re.Match[str]) -> str:
        byte, four, eight, one = match.groups()
        if byte:
            return bytes([int(byte, 16)]).decode("utf-8", "surrogateescape")
        if one:
            return _GO_CHARACTERS.get(one, one)
        number = int(four or eight, 16)
        return chr(number) if number <= 0x10ffff else "\ufffd"

    return _GO_ESCAPE.sub(character, text[1:-1]).encode("utf-8", "surrogateescape")


def _setup(said: Said) -> _Setup | None:
    return next((setup for pattern, setup in _SETUP_PATTERNS if pattern.match(said.message)), None)


def _somewhere(message: str, words: str) -> UnlocatedBadLines:
    partial, before = _PARTIAL.fullmatch(message), _BEFORE_WHY.match(message)
    why = partial["why"] if partial else message[before.end():] if before else message
    reason = _reason(why, "refused")
    return UnlocatedBadLines(reason, words, int(partial["dropped"]) if partial else None,
                        about_lines=bool(partial or _ABOUT_LINES.match(message)),
                        bounds=told(message) if reason == "outside_retention" else None)


def _server_error(status: int, said: Said, words: str,
                  after: float | None) -> UnlocatedBadLines | OperatorNeeded | Retry:
    """Of a 5xx, and what is no status at all."""
    if status == 503:
        return Retry("unavailable", words, after)
    if said.own and _PARTIAL.fullmatch(said.message):
        return _somewhere(said.message, words)
    if setup := _setup(said):
        return OperatorNeeded(setup.reason, words, setup.advice)
    return Retry("server_error", words, after, suspect=status == 500 and not _STATE.match(said.message),
                 line=said.line if re.match(_QUESTDB, said.message) else 0)


def line_reason(why: str) -> str:
    """The reason's class of one line that the server refuses in these words."""
    return _reason(why, "parse_error")


def _reason(why: str, otherwise: str) -> str:
    if _TYPE_CONFLICT.match(why) or _CAST.fullmatch(why):
        return "type_conflict"
    return "outside_retention" if _RETENTION.match(why) else otherwise
