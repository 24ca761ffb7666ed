"""The files of the status page: package data, a few kilobytes, read once."""

from importlib import resources
from typing import Final

from msgspec import Struct

#: The page itself; the others stand under `page/`.
PAGE: Final = "index.html"
_KINDS: Final = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
                 ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class PageFile(Struct, frozen=True):
    """One file."""

    content: bytes
    #: Its content type.
    kind: str


def page_files() -> dict[str, PageFile]:
    """The files by name."""
    found = {}
    for one in resources.files("pipeline.http").joinpath("page").iterdir():
        kind = _KINDS.get(one.name[one.name.rfind("."):])
        if kind is not None:
            found[one.name] = PageFile(one.read_bytes(), kind)
    return found
