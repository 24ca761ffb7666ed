"""Conditions on tags, as a source asks for them: in InfluxQL, Flux and SQL. Pure.

    InfluxQL   "t"::tag = 'x', "t"::tag =~ /x/, !=, !~
    Flux       r["t"] =~ /x/, !~, exists r["t"], not exists r["t"], r._field =~ /x/
    SQL        "t" = 'x', "t" LIKE 'x%', "t" IS NULL, "t" <> '', NOT (...), FALSE

joined by AND, OR and parentheses. A tag that a point does not have is the empty text.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Literal

from pipeline.testbed.sandbox.influxdb.query import Reader

#: Tags -> whether the condition holds.
Holds = Callable[[Mapping[str, str]], bool]
ConditionLanguage = Literal["influxql", "flux", "sql"]
#: Name of the field in Flux, beside the tags.
FIELD = "_field"
_TEXT, _REGEX = r"'(?:[^'\\]|\\.|'')*'", r"/(?:[^/\\]|\\.)*/"
_ONE_OF_ALL = re.compile(r"\\(.)|(%)|(_)|([^\\%_])", re.DOTALL)


def read_condition(reader: Reader, language: ConditionLanguage) -> Holds:
    """A condition at the beginning of the text. Raises NotUnderstood."""
    found = [_all(reader, language)]
    while reader.take("(?i:or)(?= )"):
        found.append(_all(reader, language))
    return found[0] if len(found) == 1 else lambda tags: any(holds(tags) for holds in found)


def _all(reader: Reader, language: ConditionLanguage) -> Holds:
    found = [read_one(reader, language)]
    while reader.take("(?i:and)(?= )"):
        found.append(read_one(reader, language))
    return found[0] if len(found) == 1 else lambda tags: all(holds(tags) for holds in found)


def read_one(reader: Reader, language: ConditionLanguage) -> Holds:
    """A condition without AND and OR, unless they are in parentheses. Raises NotUnderstood."""
    if reader.take(r"\("):
        holds = read_condition(reader, language)
        reader.need(r"\)")
        return holds
    if language == "sql":
        if reader.take("FALSE"):
            return lambda tags: False
        if reader.take(r"NOT(?= \()"):
            inner = read_one(reader, language)
            return lambda tags: not inner(tags)
        return _sql(reader.name(), reader)
    if language == "flux":
        return _flux(reader)
    tag = reader.name()
    reader.need("::tag")
    operator = reader.need("=~|!~|!=|=")
    fits = _fits(reader, operator)
    return lambda tags: fits(tags.get(tag, ""))


def _flux(reader: Reader) -> Holds:
    is_not, asks = reader.take("not(?= exists)"), reader.take("exists")
    tag = FIELD if reader.take(r"r\._field") else str(json.loads(reader.need(r'r\["(?:[^"\\]|\\.)*"\]')[2:-1]))
    if asks:
        return lambda tags: (tag in tags) != bool(is_not)
    fits = _fits(reader, reader.need("=~|!~"))
    return lambda tags: tag in tags and fits(tags[tag])


def _fits(reader: Reader, operator: str) -> Callable[[str], bool]:
    if operator.endswith("~"):
        # Go's $ is the end of the text, Python's also the place before a line break there.
        pattern = re.compile(reader.need(_REGEX)[1:-1].replace("\\/", "/").removesuffix("$") + r"\Z")
        return lambda text: (pattern.search(text) is not None) == (operator == "=~")
    wanted = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), reader.need(_TEXT)[1:-1])
    return lambda text: (text == wanted) == (operator == "=")


def _sql(tag: str, reader: Reader) -> Holds:
    if reader.take("IS NULL"):
        return lambda tags: tag not in tags
    operator = reader.need("LIKE|=|<>")
    wanted = reader.need(r"'(?:[^']|'')*'")[1:-1].replace("''", "'")
    if operator == "LIKE":
        pattern = re.compile(_ONE_OF_ALL.sub(lambda part: ".*" if part[2] else "." if part[3] else
                                             re.escape(part[1] or part[4]), wanted), re.DOTALL)
        return lambda tags: pattern.fullmatch(tags.get(tag, "\0absent\0")) is not None and tag in tags
    # What is null is neither equal nor different.
    return lambda tags: tag in tags and (tags[tag] == wanted) == (operator == "=")
