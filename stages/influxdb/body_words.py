"""What the body of an answer says, and whether it is an InfluxDB that says it. Pure."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pipeline.printable import SHOWN_CHARACTERS, printable

#: A page's beginning, in which its title is looked for, bytes.
_PAGE_BYTES = 20_000
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml)", re.IGNORECASE)


class Said(Struct, frozen=True):
    """A body, read."""

    #: The message in it as the server has it; the whole text where there is none.
    message: str
    #: The same for a person: one line, printable, at most SHOWN_CHARACTERS.
    shown: str
    #: It has the form of an InfluxDB's, or of what is alike: a JSON object with `error`, or with `code` and `message`.
    own: bool = False
    #: (number of the line, from 1, the line or the beginning of it, why), where InfluxDB 3 lists them.
    listed: tuple[tuple[int, str, str], ...] = ()
    #: Number of the line that it is about, from 1; 0: none. QuestDB's.
    line: int = 0


def understand(headers: Mapping[str, str], body: bytes) -> Said:
    """Reads a body; anything is understood somehow. `headers` by names in lower case."""
    if _PAGE.match(body):
        kind = headers.get("content-type", "").partition(";")[0] or "a page"
        text = body[:_PAGE_BYTES].decode("utf-8", "replace")
        title = _TITLE.search(text)
        shown = f'{kind} "{title[1].strip()}"' if title else kind
        return Said(text, one_line(shown + _server(headers)))
    parsed = json_object(body)
    if isinstance(parsed.get("error"), str):
        return Said(parsed["error"], one_line(parsed["error"]), True, _listed(parsed.get("data")))
    if isinstance(parsed.get("message"), str):
        message = parsed["message"]
        line = parsed.get("line")
        return Said(message, one_line(message), isinstance(parsed.get("code"), str),
                    line=line if type(line) is int and line > 0 else 0)
    text = body.decode("utf-8", "replace").strip()
    return Said(text, one_line(text or f"without a word{_server(headers)}"))


def json_object(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty one where the body is none."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def one_line(text: str) -> str:
    """A text for a person: one line of SHOWN_CHARACTERS at most, all of it visible; line breaks become spaces."""
    return printable(" ".join(text[:2 * SHOWN_CHARACTERS].split()), SHOWN_CHARACTERS)


def _server(headers: Mapping[str, str]) -> str:
    return f" (Server: {headers['server']})" if headers.get("server") else ""


def _listed(data: Any) -> tuple[tuple[int, str, str], ...]:
    """The lines that an InfluxDB 3 answer lists in `data`."""
    entries = data if isinstance(data, list) else [data]
    return tuple((entry["line_number"], str(entry.get("original_line", "")), str(entry.get("error_message", "")))
                 for entry in entries if isinstance(entry, dict) and type(entry.get("line_number")) is int)
