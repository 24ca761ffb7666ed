"""Makes text from outside safe to print on a terminal or in one line of a log. Pure."""

import re

#: Characters that `json.dumps` does not escape and that may be unsafe on a terminal.
_HIDDEN = re.compile(r"[^\x20-\x7e\n]")
#: Characters of outside text, such as a row or a server's message, that an error or a dead letter quotes.
SHOWN_CHARACTERS = 500
#: Cut text ends in this.
ELLIPSIS = "…"


def printable(text: str, most: int = 0) -> str:
    r"""`text` with escapes for what is not printable: line breaks, terminal sequences, bidirectional controls.

    `a\nb` becomes `a\\nb`, and an escape character `\x1b`. The text is cut to `most` characters, unless that is 0, and
    then ends with an ellipsis.
    """
    if most and len(text) > most:
        text = text[:most - 1] + ELLIPSIS
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def printable_bytes(content: bytes, most: int) -> str:
    """At most `most` bytes, which may be text, in the form that `printable` gives."""
    shown = printable(content[:most].decode("utf-8", "backslashreplace"))
    return shown + ELLIPSIS if len(content) > most else shown


def excerpt(content: str | bytes) -> str:
    """The beginning of some text, or of bytes that may be text, to be quoted: SHOWN_CHARACTERS at most."""
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
    return text[:SHOWN_CHARACTERS]


def printable_json(text: str) -> str:
    r"""JSON text with `\u` escapes for characters that are not printable; line breaks between values are kept."""
    return _HIDDEN.sub(lambda found: found[0] if found[0].isprintable() else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    encoded = character.encode("utf-16-be", "surrogatepass")
    return "".join([f"\\u{encoded[at:at + 2].hex()}" for at in range(0, len(encoded), 2)])
