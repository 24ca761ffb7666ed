"""What an answer to a write means. Pure; `tests/data/answers.toml` has recorded answers of real servers.

Only a server's own words in their place count: patterns match the beginning or the end of its message, because the
names and values of lines, which it quotes, can contain any text. Sources: recorded answers of InfluxDB OSS 2.7.12 and
1.6.7, of InfluxDB 3 Core 3.9.6 at its three endpoints, of QuestDB 9.3.4 and VictoriaMetrics 1.151 and 1.79.
"""

import re
from collections.abc import Mapping

import msgspec

from stages.influxdb.answers import Accepted, Answer, BadLines, OperatorNeeded, Retry, TooLarge, UnlocatedBadLines
from stages.influxdb.error_body import ErrorBody, one_line, parse_body
from stages.influxdb.flavour import Version
from stages.influxdb.retention_messages import stated_bounds
from stages.influxdb.retry_after import retry_after
from stages.influxdb.setup_errors import ENDPOINT_ADVICE, QUESTDB_PREFIX, setup_error

#: InfluxDB 1 and 2: a prefix of an outer layer, what went wrong, and how many lines were dropped. Names in it are not
#: quoted, so only the beginning and the end of the message can be relied on.
_PARTIAL = re.compile(
    r"(?:failure writing points to database: |unexpected error writing points to database: )?partial write: "
    r"(?P<why>.*) dropped=(?P<dropped>[0-9]{1,9})(?: for database: \S+ for retention policy: [^\n]*)?",
    re.DOTALL)
#: InfluxDB 1 and 2 quote lines.
_NAMED = re.compile(r"(?P<partial>partial write: )?unable to parse '")
#: InfluxDB 3 lists them.
_LISTED = "partial write of line protocol occurred"
#: Messages about lines that are not identified: InfluxDB 3 at its three endpoints, and its hosted kinds; QuestDB.
_ABOUT_LINES = re.compile("(write buffer error: )?line protocol parse failed: |parsing failed for write_lp endpoint"
                          r"|failed to parse line protocol:|partial write|field type conflict\Z"
                          "|(dml handler error: )?data in table ")
#: VictoriaMetrics, in plain text.
_VICTORIA_LINE = re.compile(r'cannot process influx line protocol data: incorrect influx line (?P<quoted>"(?:[^"\\]|'
                            r'\\.)*+"): (?P<why>.*)', re.DOTALL)
_SEE = re.compile(r"; see https://docs\.victoriametrics\.com/\S*\Z")
#: QuestDB's message about one line.
_QUESTDB_LINE = re.compile(rf"{QUESTDB_PREFIX}\nerror in line [0-9]+: (?P<why>.*)", re.DOTALL)
#: InfluxDB Enterprise queues the lines for an unavailable node: they are accepted. Source: telegraf,
#: `plugins/outputs/influxdb/http.go`.
_QUEUED = re.compile("(write failed: )?hinted handoff queue not empty")
#: InfluxDB 3's message for a body over its limit, with 500.
_TOO_LARGE = re.compile(r"max request size \([0-9]+ bytes\) exceeded")
_CAST = re.compile(r"table: .*, column: .*; cast error from protocol type: [A-Z0-9_]+ to column type: "
                   r"[A-Z0-9_()\[\], ]+", re.DOTALL)
_TYPE_CONFLICT = re.compile(r"field type conflict(: |\Z)|invalid column type for column |column type |conflicting types"
                            "|incompatible type")
_RETENTION = re.compile("points beyond retention policy|dropped [0-9]+ points outside retention policy"
                        "|(dml handler error: )?data .*(older than|outside of)( the)? retention")
#: InfluxDB 3: before the reason, in a message that identifies no line.
_BEFORE_WHY = re.compile("(write buffer error: )?line protocol parse failed: ")
#: InfluxDB 1's messages about its own state, whatever the lines are.
_STATE = re.compile(r"timeout\Z|(write failed: )?(engine: )?cache-max-memory-size exceeded|engine: cache")
#: Escapes of Go's strconv.Quote.
_GO_ESCAPE = re.compile(r'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))', re.DOTALL)
_GO_CHARACTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def classify(status: int, headers: Mapping[str, str], body: bytes, now: float,
             version: Version | None = None) -> Answer:
    """The meaning of an HTTP answer to a write. `headers` by names in lower case.

    `now` in seconds since 1970, for a Retry-After that is a date. `version`: the API of the request; whether 200 means
    success depends on it.
    """
    error = parse_body(headers, body)
    if status == 204 or status == 200 and not body.strip() and _answers_200(headers, version):
        return Accepted()
    if status in (500, 503) and error.is_influxdb and _QUEUED.fullmatch(error.message):
        return Accepted()
    answer = _success(status, error) if 200 <= status < 300 else _failure(status, headers, error, now)
    return answer if isinstance(answer, Accepted) else msgspec.structs.replace(answer, status=status)


def _answers_200(headers: Mapping[str, str], version: Version | None) -> bool:
    """Whether an empty 200 means that everything is stored: early versions of InfluxDB 3, and QuestDB."""
    return version == "v3" or headers.get("server", "").lower().startswith("questdb")


def _success(status: int, error: ErrorBody) -> BadLines | OperatorNeeded:
    """The meaning of a 2xx that is not InfluxDB's success: a login page, or a JSON object with an error in it."""
    if error.is_influxdb:
        refusal = _refusal(error, f"{status} {error.summary}")
        if isinstance(refusal, BadLines):
            return refusal
    return OperatorNeeded("refused", f"{status} {error.summary}",
                          "InfluxDB does not answer so after it has stored something: correct the URL; a proxy or a "
                          "login page may be between here and the server")


def _failure(status: int, headers: Mapping[str, str], error: ErrorBody,
             now: float) -> BadLines | UnlocatedBadLines | TooLarge | OperatorNeeded | Retry:
    shown = f"{status} {error.summary}".strip()
    if status in (400, 422):
        return _refusal(error, shown)
    if status == 413 and error.is_influxdb and error.line:
        return BadLines(shown, ((error.line, "", error.message),), first=True, reason="too_large")
    if status == 413 or status == 500 and _TOO_LARGE.match(error.message):
        return TooLarge(shown)
    if status in (401, 403):
        if error.is_influxdb and stated_bounds(error.message):  # InfluxDB Cloud Serverless
            return _unlocated(error.message, shown)
        return OperatorNeeded("unauthorized", shown)
    setup = setup_error(error.message)
    if status in (404, 405, 501):
        advice = setup.advice if setup else ENDPOINT_ADVICE
        return OperatorNeeded("not_found" if status == 404 else "refused", shown, advice)
    if 300 <= status < 400:
        place = one_line(headers.get("location", "another place"))
        return OperatorNeeded("refused", f"{status} redirects to {place}", "correct url: redirects are not followed")
    after = retry_after(headers.get("retry-after"), now, headers.get("date"))
    if status in (408, 425, 429):
        return Retry("rate_limited" if status == 429 else "timeout", shown, after)
    if status < 500:
        return OperatorNeeded("refused", shown, setup.advice if setup else "")
    return _server_error(status, error, shown, after)


def _refusal(error: ErrorBody, shown: str) -> BadLines | UnlocatedBadLines | OperatorNeeded:
    """The meaning of a 400 or 422."""
    message = error.message
    if not error.is_influxdb:
        setup = setup_error(error.message)
        if setup:
            return OperatorNeeded(setup.reason, shown, setup.advice)
        if victoria := _VICTORIA_LINE.fullmatch(message):
            why = _SEE.sub("", victoria["why"])
            return BadLines(shown, first=True, quoted=(unquoted(victoria["quoted"]), why))
        return OperatorNeeded("refused", shown,
                              "InfluxDB does not refuse lines so: correct the URL (https:// or http://, host, port, "
                              "path), or the proxy between here and the server")
    if error.listed:
        return BadLines(shown, error.listed, message == _LISTED)
    if named := _NAMED.match(message):
        return BadLines(message, rest_stored=named["partial"] is not None)
    setup = setup_error(error.message)
    if setup:
        return OperatorNeeded(setup.reason, shown, setup.advice)
    if error.line and (numbered := _QUESTDB_LINE.fullmatch(message)):
        return BadLines(shown, ((error.line, "", numbered["why"]),), first=True)
    return _unlocated(message, shown)


def _unlocated(message: str, shown: str) -> UnlocatedBadLines:
    partial, before = _PARTIAL.fullmatch(message), _BEFORE_WHY.match(message)
    why = partial["why"] if partial else message[before.end():] if before else message
    reason = _reason(why, "refused")
    return UnlocatedBadLines(reason, shown, int(partial["dropped"]) if partial else None,
                             about_lines=bool(partial or _ABOUT_LINES.match(message)),
                             bounds=stated_bounds(message) if reason == "outside_retention" else None)


def _server_error(status: int, error: ErrorBody, shown: str,
                  after: float | None) -> UnlocatedBadLines | OperatorNeeded | Retry:
    """The meaning of a 5xx, or of a status outside of HTTP's range."""
    if status == 503:
        return Retry("unavailable", shown, after)
    if error.is_influxdb and _PARTIAL.fullmatch(error.message):
        return _unlocated(error.message, shown)
    if setup := setup_error(error.message):
        return OperatorNeeded(setup.reason, shown, setup.advice)
    return Retry("server_error", shown, after, suspect=status == 500 and not _STATE.match(error.message),
                 line=error.line if re.match(QUESTDB_PREFIX, error.message) else 0)


def line_reason(why: str) -> str:
    """The reason of a dead letter for one line, from the server's message about it."""
    return _reason(why, "parse_error")


def _reason(why: str, otherwise: str) -> str:
    if _TYPE_CONFLICT.match(why) or _CAST.fullmatch(why):
        return "type_conflict"
    return "outside_retention" if _RETENTION.match(why) else otherwise


def unquoted(text: str) -> bytes:
    """The text that Go's strconv.Quote has quoted."""
    def character(match: re.Match[str]) -> str:
        byte, four, eight, one = match.groups()
        if byte:
            return bytes([int(byte, 16)]).decode("utf-8", "surrogateescape")
        if one:
            return _GO_CHARACTERS.get(one, one)
        number = int(four or eight, 16)
        return chr(number) if number <= 0x10ffff else "\ufffd"

    return _GO_ESCAPE.sub(character, text[1:-1]).encode("utf-8", "surrogateescape")
