"""Warnings about messages that are written but may not mean what was intended: counts and an example by kind. Pure."""

from typing import Final, Literal

from pipeline.wire.sink import Notice
from stages.mapping.reject import Reject

#: Longest example, characters.
_DETAIL_CHARACTERS: Final = 300

#: "name_clash": two values of a message have the same name, and one of them was left out, or a tag and a field have the
#: same key; "duplicate_key": a JSON object has a key twice; "implausible_time": a time is far from the present;
#: "type_conflict": a field was left out because it has had another type (`on_bad_value`).
NoticeKind = Literal["name_clash", "duplicate_key", "implausible_time", "type_conflict", "slow_function"]


class Notices:
    """The notices of one encoder since they were last taken."""

    def __init__(self, on_name_clash: Literal["reject", "keep_last"] = "reject") -> None:
        self._rejects_clashes = on_name_clash == "reject"
        self._found: dict[NoticeKind, Notice] = {}
        #: Notices of the current message: kind and detail.
        self.pending: list[tuple[NoticeKind, str]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def note(self, kind: NoticeKind, detail: str) -> None:
        """Adds a notice for the current message, until `place` or `drop` is called."""
        self.pending.append((kind, detail))

    def clash(self, detail: str) -> None:
        """Adds a notice that two values of the current message have the same name. Raises Reject if that is the
        policy."""
        if self._rejects_clashes:
            raise Reject("name_clash", detail)
        self.note("name_clash", f"{detail}; the last one counts")

    def place(self, place: str) -> None:
        """Counts the notices of the current message, which is written; `place` is its partition and offset."""
        if not self.pending:
            return
        for kind, detail in {kind: detail for kind, detail in reversed(self.pending)}.items():
            self.add(kind, 1, place, detail)
        self.drop()

    def drop(self) -> None:
        """Discards the notices of the current message: it is not written, or is encoded again."""
        self.pending = []

    def add(self, kind: NoticeKind, count: int, place: str, detail: str) -> None:
        """Counts messages of a kind, and keeps the first as the example."""
        held = self._found.get(kind)
        self._found[kind] = Notice(kind, count, place, detail[:_DETAIL_CHARACTERS]) if held is None else (
            Notice(kind, held.count + count, held.place, held.detail))

    def take(self) -> list[Notice]:
        """Returns all notices and resets them."""
        found = list(self._found.values())
        self._found = {}
        return found
