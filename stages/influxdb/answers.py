"""What an answer to a write means. Pure; `tests/data/answers.toml` holds what real servers said.

Sources: recorded answers of InfluxDB OSS 2.7.12 and 1.6.7, and of InfluxDB 3 Core 3.9.6 at its three endpoints.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from msgspec import Struct

#: Of an answer's body, how many characters are kept for people.
SHOWN_CHARACTERS = 500


class Written(Struct, frozen=True):
    """Every line is stored."""


class BadLines(Struct, frozen=True):
    """The server names the lines that it refuses."""

    #: Its words; lines are quoted in them as `unable to parse '<line>': <why>`, unless `listed`.
    words: str
    #: (number of the line in the request, from 1, the line or the beginning of it, why), where the server lists them.
    listed: tuple[tuple[int, str, str], ...] = ()
    #: The other lines of the request are stored.
    rest_stored: bool = False
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class BadSomewhere(Struct, frozen=True):
    """Some lines are refused, and the server does not say which."""

    #: type_conflict, outside_retention or refused.
    reason: str
    words: str
    #: How many, where it says so.
    dropped: int | None = None
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class TooLarge(Struct, frozen=True):
    """The request's body is over the server's limit."""

    words: str
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class Paused(Struct, frozen=True):
    """Nothing can be written before somebody has mended something: credentials, a bucket, the URL."""

    #: unauthorized, not_found or refused.
    reason: str
    words: str
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class Again(Struct, frozen=True):
    """To be tried again later."""

    #: rate_limited, unavailable, server_error, timeout or no_connection.
    reason: str
    words: str
    #: How long the server asks to wait, seconds.
    after: float | None = None
    #: The cause may be a line of this request rather than the server's state.
    suspect: bool = False
    #: HTTP status; 0 where there was no answer.
    status: int = 0


Answer = Written | BadLines | BadSomewhere | TooLarge | Paused | Again

_DROPPED = re.compile(r"dropped[= ](\d+)")
#: 4xx and 5xx texts that are about the request as a whole, not about a line.
_SETUP = ("database is required", "invalid precision", "retention policy not found", "database not found",
          "org id is required", "organization not found", "bucket is required", "database name",
          # InfluxDB 3: a database that has no name, a bad one, or that is one too many; a query that isn't understood.
          "db name ", "namespace name ", "database or rp name", "destination provided", "missing bucket value",
          "missing query parameter", "Adding a new database would exceed limit", "serde error", "failed to deserialize",
          "content-encoding")
_CREDENTIALS = ("Authorization header was malformed",)
_TRANSPORT = ("gzip: ", "gzip stream: ", "unexpected EOF", "timeout")
#: InfluxDB 3's words for a body over its limit, with 500.
_TOO_LARGE = "max request size ("
#: InfluxDB 3's words before what is wrong with a line, at the endpoint of InfluxDB 2.
_LINE = "line protocol parse failed"
_TYPE_CONFLICT = ("field type conflict", "column type", "conflicting types", "incompatible type")
_RETENTION = ("outside retention policy", "beyond retention policy", "older than retention", "outside of retention")
#: Statuses that say that this is not the endpoint, or that a person has to act.
_PERSON = {402, 405, 406, 407, 409, 410, 415, 451}


def words_of(body: bytes) -> str:
    """What the server says, for a person: the message of a JSON body, else the text; at most SHOWN_CHARACTERS."""
    return _message(body)[:SHOWN_CHARACTERS]


def _message(body: bytes) -> str:
    parsed = _json(body)
    if isinstance(parsed, dict):
        for key in ("message", "error", "err"):
            if isinstance(parsed.get(key), str):
                return str(parsed[key])
    return body.decode("utf-8", "replace").strip()


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date against `now` (seconds since 1970)."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def classify(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
    """The meaning of an HTTP answer to a write. `now` in seconds since 1970, for a Retry-After that is a date."""
    if 200 <= status < 300:
        return Written()
    return msgspec.structs.replace(_failure(status, headers, body, now), status=status)


def _failure(status: int, headers: Mapping[str, str], body: bytes,
             now: float) -> BadLines | BadSomewhere | TooLarge | Paused | Again:
    words = f"{status} {words_of(body)}".strip()
    if status in (400, 422):
        return _refusal(body, words)
    if status == 413 or status == 500 and _message(body).startswith(_TOO_LARGE):
        return TooLarge(words)
    if status in (401, 403):
        return Paused("unauthorized", words)
    if status == 404:
        return Paused("not_found", words)
    if 300 <= status < 400:
        return Paused("refused", f"{status} redirects to {headers.get('Location', 'another place')}")
    after = retry_after(headers.get("Retry-After"), now)
    if status in (408, 425, 429):
        return Again("rate_limited" if status == 429 else "timeout", words, after)
    if status in _PERSON or 400 <= status < 500:
        return Paused("refused", words)
    return _server_error(status, body, words, after)


def _refusal(body: bytes, words: str) -> BadLines | BadSomewhere | Paused | Again:
    message = _message(body)
    listed = _listed(_json(body))
    if listed:
        return BadLines(words, listed, "partial write" in message)
    if "unable to parse '" in message:
        return BadLines(message, rest_stored="partial write" in message)
    if "partial write" not in message and _LINE not in message:
        if any(text in message for text in _CREDENTIALS):
            return Paused("unauthorized", words)
        if any(text in message for text in _SETUP):
            return Paused("refused", words)
        if any(text in message for text in _TRANSPORT):
            return Again("server_error", words, suspect=True)
    return _somewhere(message, words)


def _somewhere(message: str, words: str) -> BadSomewhere:
    reason = "refused"
    if any(text in message for text in _TYPE_CONFLICT):
        reason = "type_conflict"
    elif any(text in message for text in _RETENTION):
        reason = "outside_retention"
    dropped = _DROPPED.search(message) if "partial write" in message else None
    return BadSomewhere(reason, words, int(dropped.group(1)) if dropped else None)


def _listed(parsed: Any) -> tuple[tuple[int, str, str], ...]:
    """The lines that an InfluxDB 3 answer lists in `data`."""
    data = parsed.get("data") if isinstance(parsed, dict) else None
    entries = data if isinstance(data, list) else [data]
    return tuple((entry["line_number"], str(entry.get("original_line", "")), str(entry.get("error_message", "")))
                 for entry in entries if isinstance(entry, dict) and isinstance(entry.get("line_number"), int))


def _server_error(status: int, body: bytes, words: str, after: float | None) -> BadSomewhere | Paused | Again:
    message = _message(body)
    if status == 503:
        return Again("unavailable", words, after)
    if any(text in message for text in _RETENTION) or "partial write" in message:
        return _somewhere(message, words)
    if any(text in message for text in _SETUP):
        return Paused("refused", words)
    return Again("server_error", words, after, suspect=status == 500)


def line_reason(words: str) -> str:
    """The reason's class of one line that the server refuses in these words."""
    if any(text in words for text in _TYPE_CONFLICT):
        return "type_conflict"
    return "outside_retention" if any(text in words for text in _RETENTION) else "parse_error"
