"""Patterns of names (`patterns.py`) as regular expressions for InfluxDB: those that both Go's package regexp and, for
Flux, Rust's crate regex take. Pure."""

import re

_SPECIAL = re.compile(r"[.+*?()|\[\]{}^$\\/\x00-\x1f\x7f]")


def regex_of(texts: tuple[str, ...]) -> str:
    """An expression that matches the whole of a text that is not empty and fits one of these patterns.

    It stands between slashes in InfluxQL and Flux, so slashes in it have a backslash.
    """
    return f"^(?s:{'|'.join(map(_translated, texts))})$"


def _translated(pattern: str) -> str:
    if not pattern.strip("*"):
        return ".+"
    return "".join([{"*": ".*", "?": "."}.get(character) or escaped(character) for character in pattern])


def escaped(text: str) -> str:
    """Text that stands for itself in an expression. Control characters, which InfluxQL and Flux read otherwise, are
    written as numbers. Nothing else has a backslash: Rust takes none before a character that has no meaning."""
    return _SPECIAL.sub(lambda found: f"\\x{ord(found[0]):02x}" if found[0] < " " or found[0] == "\x7f" else
                        f"\\{found[0]}", text)
