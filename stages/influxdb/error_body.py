"""Parses the body of an answer: its message, and the lines that it is about. Pure."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pipeline.printable import SHOWN_CHARACTERS, printable

#: Length of the beginning of an HTML page that is searched for its title, bytes.
_PAGE_BYTES = 20_000
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml)", re.IGNORECASE)


class ErrorBody(Struct, frozen=True):
    """A parsed body."""

    #: The message as the server has it; the whole text if the body has no known form.
    message: str
    #: The message for logs: one line, printable, at most SHOWN_CHARACTERS.
    summary: str
    #: The body has the form of InfluxDB's errors: a JSON object with `error`, or with `code` and `message`.
    is_influxdb: bool = False
    #: The lines that InfluxDB 3 lists: (number from 1, the line or the beginning of it, why).
    listed: tuple[tuple[int, str, str], ...] = ()
    #: Number of the line that QuestDB's message is about, from 1; 0: none.
    line: int = 0


def parse_body(headers: Mapping[str, str], body: bytes) -> ErrorBody:
    """Parses any body; never raises. `headers` by names in lower case."""
    if _PAGE.match(body):
        kind = headers.get("content-type", "").partition(";")[0] or "a page"
        text = body[:_PAGE_BYTES].decode("utf-8", "replace")
        title = _TITLE.search(text)
        summary = f'{kind} "{title[1].strip()}"' if title else kind
        return ErrorBody(text, one_line(summary + _server(headers)))
    parsed = json_object(body)
    if isinstance(parsed.get("error"), str):
        return ErrorBody(parsed["error"], one_line(parsed["error"]), True, _listed(parsed.get("data")))
    if isinstance(parsed.get("message"), str):
        message = parsed["message"]
        line = parsed.get("line")
        return ErrorBody(message, one_line(message), isinstance(parsed.get("code"), str),
                    line=line if type(line) is int and line > 0 else 0)
    text = body.decode("utf-8", "replace").strip()
    return ErrorBody(text, one_line(text or f"with an empty body{_server(headers)}"))


def json_object(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty one if the body is not one."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def one_line(text: str) -> str:
    """A text for logs: printable, SHOWN_CHARACTERS at most; line breaks become spaces."""
    return printable(" ".join(text[:2 * SHOWN_CHARACTERS].split()), SHOWN_CHARACTERS)


def _server(headers: Mapping[str, str]) -> str:
    return f" (Server: {headers['server']})" if headers.get("server") else ""


def _listed(data: Any) -> tuple[tuple[int, str, str], ...]:
    """The lines that an InfluxDB 3 answer lists in `data`."""
    entries = data if isinstance(data, list) else [data]
    return tuple((entry["line_number"], str(entry.get("original_line", "")), str(entry.get("error_message", "")))
                 for entry in entries if isinstance(entry, dict) and type(entry.get("line_number")) is int)
