"""`${VAR}` in a configuration's strings: replaced from the environment, and mistaken for nothing else. Pure.

A string may hold `${VAR}`, `${VAR:-default}` (also for an empty variable) and `${VAR:?message}`. What looks like a
variable and is none (`${VAR` without its end, `$VAR` alone) is a mistake, since it would be sent to a server literally.
A second dollar sign makes text of it: `$${VAR}`, `$$VAR`.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

#: Environment variable that names the configuration's files and folders where `-c` is not given.
CONFIG_VARIABLE: Final = "PIPELINE_CONFIG"
#: "address": in URLs and paths a variable may stand anywhere, so `$VAR` is a mistake anywhere; "text": it is one as a
#: word of its own, because passwords hold dollar signs; "data": never, as in queries (`$from`, Flux's `${r.host}`)
#: and messages.
Place = Literal["address", "text", "data"]

_BRACES: Final = re.compile(r"(\$?)\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?:(:-|:\?)([^}]*))?\})?", re.ASCII)
_BARE: Final[dict[Place, re.Pattern[str]]] = {
    "address": re.compile(r"(\$?)\$([A-Za-z_][A-Za-z0-9_]*)", re.ASCII),
    "text": re.compile(r"(?<!\S)(\$?)\$([A-Za-z_][A-Za-z0-9_]*)(?!\S)", re.ASCII),
}


class Expanded(Struct):
    """A string with its variables replaced."""

    text: str = ""
    #: Variables that were replaced: variable -> value.
    values: dict[str, str] = {}
    #: A sentence for each variable that is needed and not set.
    unset: list[str] = []
    #: A sentence for each mistake in the string itself.
    problems: list[str] = []


def expand(raw: str, environ: Mapping[str, str], place: Place = "text") -> Expanded:
    """The string `raw` with its variables replaced from `environ`."""
    if "$" not in raw:
        return Expanded(raw)
    found = Expanded()
    at = 0
    for match in _BRACES.finditer(raw):
        found.text += _literal(raw[at:match.start()], place, found)
        found.text += _value(match, environ, place, found)
        at = match.end()
    found.text += _literal(raw[at:], place, found)
    return found


def holds_variable(text: str) -> bool:
    """Whether `${` occurs outside string values, such as in a key, where it is not replaced."""
    return "${" in text


def _literal(text: str, place: Place, found: Expanded) -> str:
    """The text between variables, with `$$VAR` as `$VAR`."""
    pattern = _BARE.get(place)
    if pattern is None or "$" not in text:
        return text

    def replacement(match: re.Match[str]) -> str:
        doubled, name = match.groups()
        if not doubled:
            found.problems.append(f"${name} is not replaced; write ${{{name}}} for the environment variable, or "
                                  f"$${name} for the text")
        return f"${name}"

    return pattern.sub(replacement, text)


def _value(match: re.Match[str], environ: Mapping[str, str], place: Place, found: Expanded) -> str:
    doubled, name, operator, rest = match.groups()
    if doubled:
        return match[0][1:]
    if name is None:
        if place == "data":
            return match[0]
        found.problems.append("${ begins no variable; write ${VAR}, ${VAR:-default} or ${VAR:?message}, or $${ for "
                              "the text")
        return ""
    if rest and "${" in rest:
        found.problems.append(f"${{{name}{operator}...}} holds another variable; a default is plain text")
        return ""
    value = environ.get(name, "")
    if not value and operator == ":-":
        return str(rest)
    if not value and (operator or name not in environ):
        found.unset.append(f"environment variable {name} is not set" + (f": {rest}" if rest else ""))
        return ""
    if not value.isprintable() and any("\udc80" <= character <= "\udcff" for character in value):
        found.problems.append(f"environment variable {name} is not UTF-8 text")
        return ""
    found.values[name] = value
    return value
