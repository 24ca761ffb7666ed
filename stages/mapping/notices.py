"""What is written all the same, and may not be what its owner means: counted by kind, each with an example. Pure."""

from typing import Final, Literal

from pipeline.wire.sink import Notice
from stages.mapping.reject import Reject

#: Of an example's words, so many characters are kept.
_DETAIL_CHARACTERS: Final = 300

#: "name_clash": two values of a message have one name, and one of them was left out, or a tag and a field have one;
#: "duplicate_key": a JSON object has a key twice; "implausible_time": a time is far from the present.
NoticeKind = Literal["name_clash", "duplicate_key", "implausible_time"]


class Notices:
    """The notices of one encoder since they were taken."""

    def __init__(self, on_name_clash: Literal["reject", "keep_last"] = "reject") -> None:
        self._rejects_clashes = on_name_clash == "reject"
        self._found: dict[NoticeKind, Notice] = {}
        #: Of the message at hand: kinds, and what it is.
        self.pending: list[tuple[NoticeKind, str]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def note(self, kind: NoticeKind, detail: str) -> None:
        """Notes something of the message at hand; `place` or `drop` says what becomes of that."""
        self.pending.append((kind, detail))

    def clash(self, detail: str) -> None:
        """Two values of the message at hand have one name. Raises Reject where that is the policy."""
        if self._rejects_clashes:
            raise Reject("name_clash", detail)
        self.note("name_clash", f"{detail}; the last one counts")

    def place(self, place: str) -> None:
        """The message at hand is written; says where it was."""
        if not self.pending:
            return
        for kind, detail in {kind: detail for kind, detail in reversed(self.pending)}.items():
            self.add(kind, 1, place, detail)
        self.drop()

    def drop(self) -> None:
        """The message at hand is not written, or comes again."""
        self.pending = []

    def add(self, kind: NoticeKind, count: int, place: str, detail: str) -> None:
        """Counts messages, and keeps the first as the example."""
        held = self._found.get(kind)
        self._found[kind] = Notice(kind, count, place, detail[:_DETAIL_CHARACTERS]) if held is None else (
            Notice(kind, held.count + count, held.place, held.detail))

    def take(self) -> list[Notice]:
        """All of them; from now on they are counted anew."""
        found = list(self._found.values())
        self._found = {}
        return found
