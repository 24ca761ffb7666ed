"""Escaping by the line protocol's specification: one function an element of the line.

Each is pure. Text that an element cannot hold raises `Unwritable` with the reason, instead of producing a line that the
server would read differently. The rules were verified with InfluxDB 1.6.7 and line-protocol-parser
(tests/servers/test_mapping_against_influxdb1.py): both read back what was written.
"""

import re
from typing import Final


class Unwritable(ValueError):
    """The text cannot be held by this element of a line (reject reason "unwritable")."""


#: Longest series key, bytes: measurement, tags, four bytes of separator, field key. Source: InfluxDB, models/points.go.
MAX_KEY_BYTES: Final = 65_535
KEY_SEPARATOR_BYTES: Final = 4
#: Elements before which InfluxDB skips white space. It unescapes `\,`, `\=` and `\"` in them twice when it stores them,
#: and then cannot find such points. Source: InfluxDB 1 and 2, pkg/escape/bytes.go, Unescape.
_AFTER_SPACE = ("measurement", "field key")
_DROPPED = re.compile(r'\\[,="]')
_MEASUREMENT = str.maketrans({",": "\\,", " ": "\\ "})
KEY: Final = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})
_STRING = str.maketrans({'"': '\\"', "\\": "\\\\"})
_BEFORE_SPACE = re.compile(r"\\+ ")
_ESCAPED = re.compile(r"\\([,= ])")


def _check(text: str, element: str) -> None:
    """Refuse text that no escape can express in `element`: empty, or with a line break, NUL, or trailing backslash."""
    if not text:
        raise Unwritable(f"{element} is empty")
    if "\n" in text or "\r" in text:
        raise Unwritable(f"{element} contains a line break")
    if "\0" in text:
        raise Unwritable(f"{element} contains a NUL")
    if text[0] == "\t" and element in _AFTER_SPACE:
        raise Unwritable(f"{element} starts with a tab, which InfluxDB would drop")
    if "\\" in text:
        if text[-1] == "\\":
            raise Unwritable(f"{element} ends with a backslash")
        # The server takes that space for the beginning of the fields, and counts quotes from there on.
        if "\\ " in text:
            raise Unwritable(f"{element} contains a backslash before a space")
        if element in _AFTER_SPACE and _DROPPED.search(text):
            raise Unwritable(f"{element} contains a backslash before a comma, equals sign or double quote")
    if not text.isascii():
        _encodable(text, element)


def _encodable(text: str, element: str) -> None:
    """Refuse lone surrogates: a line is UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unwritable(f"{element} is not valid Unicode") from None


def measurement(text: str) -> str:
    """Line protocol element `measurement`: comma and space are escaped; a leading `#` would be a comment."""
    _check(text, "measurement")
    if text[0] == "#":
        raise Unwritable("measurement starts with #, which makes the line a comment")
    return text.translate(_MEASUREMENT)


def tag_key(text: str) -> str:
    """Line protocol element `tag key`: comma, equals sign and space are escaped."""
    _check(text, "tag key")
    return text.translate(KEY)


def tag_value(text: str) -> str:
    """Line protocol element `tag value`: comma, equals sign and space are escaped."""
    _check(text, "tag value")
    return text.translate(KEY)


def field_key(text: str) -> str:
    """Line protocol element `field key`: comma, equals sign and space are escaped."""
    _check(text, "field key")
    return text.translate(KEY)


def string_field(text: str) -> str:
    """Line protocol element `string field value`: quoted; quote and backslash are escaped, line breaks are kept raw."""
    if "\0" in text:
        raise Unwritable("string field contains a NUL")
    if not text.isascii():
        _encodable(text, "string field")
    return '"' + text.translate(_STRING) + '"'


def unescaped(text: str) -> str:
    """The text of a tag key, tag value or field key of a line."""
    return _ESCAPED.sub(r"\1", text)


def clean_tag(text: str) -> str:
    """A tag key or value that can be written, from any text: a line break as `\\n` or `\\r` in two characters, no NUL,
    no backslash at the end or before a space, and U+FFFD for half a surrogate pair. "" where nothing is left.

    Source: Telegraf's serializer of line protocol, for line breaks and trailing backslashes.
    """
    text = text.replace("\n", "\\n").replace("\r", "\\r").replace("\0", "")
    if "\\" in text:
        text = _BEFORE_SPACE.sub(" ", text).rstrip("\\")
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_key(head: str, field_lead: str) -> None:
    """Refuse a series key that is too long: measurement and tags, and the escaped `key=` of a field."""
    size = len(head.encode()) + KEY_SEPARATOR_BYTES + len(field_lead.encode()) - 1
    if size > MAX_KEY_BYTES:
        raise Unwritable(f"measurement, tags and field key take {size} bytes, more than the {MAX_KEY_BYTES} "
                         "that InfluxDB holds")
