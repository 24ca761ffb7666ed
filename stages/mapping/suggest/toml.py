"""Writes values and comments as TOML, a mapping's options and their reasons. Pure. Source: TOML 1.0."""

import json
import re
import textwrap
from collections.abc import Iterable
from typing import Any, Final

from pipeline.printable import printable

#: Longest line, characters.
WIDTH: Final = 120
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def value(content: Any, width: int = WIDTH) -> str:
    """A value: text, number, boolean, list or table; a list that is longer than `width` takes several lines."""
    if isinstance(content, bool):
        return "true" if content else "false"
    if isinstance(content, str):
        return text(content)
    if isinstance(content, dict):
        inner = ", ".join(f"{key(name)} = {value(item, 10**9)}" for name, item in content.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(content, list | tuple):
        parts = [value(item, 10**9) for item in content]
        one_line = f"[{', '.join(parts)}]"
        return one_line if len(one_line) <= width else "[\n" + "".join(f"    {part},\n" for part in parts) + "]"
    return str(content)


def text(content: str) -> str:
    """A basic string; a literal one where that saves escapes."""
    if ('"' in content or "\\" in content) and "'" not in content and content.isprintable():
        return f"'{content}'"
    # JSON's escapes are TOML's; DEL must be escaped, too, and what is not printable is better read so.
    out = json.dumps(content, ensure_ascii=False)
    return "".join([c if c.isprintable() else f"\\u{ord(c):04X}" if ord(c) < 0x10000 else f"\\U{ord(c):08X}"
                    for c in out])


def key(name: str) -> str:
    """A key, in quotes where it needs them."""
    return name if _BARE_KEY.fullmatch(name) else text(name)


def comment(lines: Iterable[str], indent: str = "") -> str:
    """Comment lines; long ones are wrapped, and what is not printable is escaped."""
    out = ""
    for line in lines:
        wrapped = textwrap.wrap(printable(line), WIDTH - 4 - len(indent), break_long_words=True, break_on_hyphens=False)
        for number, piece in enumerate(wrapped or [""]):
            out += f"{indent}# {'  ' if number else ''}{piece}".rstrip() + "\n"
    return out
