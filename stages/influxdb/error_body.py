"""Parses the body of an answer: its error message, and whether it has the form of an InfluxDB's. Pure."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pipeline.printable import SHOWN_CHARACTERS, printable

#: Bytes of a page that are searched for its title.
_PAGE_BYTES = 20_000
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml)", re.IGNORECASE)


class ErrorBody(Struct, frozen=True):
    """The parsed body of an answer."""

    #: The server's message; the whole text if there is none.
    message: str
    #: The message for logs: one line, printable, at most SHOWN_CHARACTERS.
    shown: str
    #: The body has the form of an InfluxDB or a compatible server: a JSON object with `error`, or `code` and `message`.
    own: bool = False
    #: (number of the line, from 1; the line or its beginning; why) of each line that InfluxDB 3 lists.
    listed: tuple[tuple[int, str, str], ...] = ()
    #: Number of the line that QuestDB's message is about, from 1; 0: none.
    line: int = 0


def parse(headers: Mapping[str, str], body: bytes) -> ErrorBody:
    """Parses any body. Keys of `headers` are in lower case."""
    if _PAGE.match(body):
        kind = headers.get("content-type", "").partition(";")[0] or "a page"
        text = body[:_PAGE_BYTES].decode("utf-8", "replace")
        title = _TITLE.search(text)
        shown = f'{kind} "{title[1].strip()}"' if title else kind
        return ErrorBody(text, one_line(shown + _server(headers)))
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
    """The JSON object in a body; an empty one if there is none."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def one_line(text: str) -> str:
    """The text for logs: one printable line of at most SHOWN_CHARACTERS; line breaks become spaces."""
    return printable(" ".join(text[:2 * SHOWN_CHARACTERS].split()), SHOWN_CHARACTERS)


def _server(headers: Mapping[str, str]) -> str:
    return f" (Server: {headers['server']})" if headers.get("server") else ""


def _listed(data: Any) -> tuple[tuple[int, str, str], ...]:
    """The lines that an InfluxDB 3 answer lists in `data`."""
    entries = data if isinstance(data, list) else [data]
    return tuple((entry["line_number"], str(entry.get("original_line", "")), str(entry.get("error_message", "")))
                 for entry in entries if isinstance(entry, dict) and type(entry.get("line_number")) is int)
