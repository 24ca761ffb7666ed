"""How the values of a message stand in its payload, by format: a template with a place for each value. Pure."""

import csv
import io
import json
from typing import Any, Protocol

import msgspec

from pipeline.testbed.load.slots import CONSTANT, Slot

#: A template's place for a value.
PLACE = b"%b"
Tree = dict[str, Any]


class Encoding(Protocol):
    """One format."""

    def template(self, slots: list[Slot]) -> tuple[bytes, list[Slot]]:
        """A payload with places, and the slots whose values they are for, in that order."""

    def text(self, value: str) -> bytes:
        """A text as it stands in a place."""

    def number(self, hundredths: int) -> bytes:
        """A number of hundredths."""

    def integer(self, value: int) -> bytes:
        """An integer."""

    def boolean(self, value: bool) -> bytes:
        """A boolean."""

    def time(self, value: int | str) -> bytes:
        """A time, a number or a text."""


class Json:
    """`json` and `ndjson`: an object, with objects inside for paths with dots."""

    def template(self, slots: list[Slot]) -> tuple[bytes, list[Slot]]:
        order: list[Slot] = []
        return self._object(nested(slots), order), order

    def _object(self, tree: Tree, order: list[Slot]) -> bytes:
        members = [escaped(self.text(name)) + b":" + (self._object(item, order) if isinstance(item, dict)
                                                      else _place(self, item, order)) for name, item in tree.items()]
        return b"{" + b",".join(members) + b"}"

    def text(self, value: str) -> bytes:
        return json.dumps(value, ensure_ascii=False).encode()

    def number(self, hundredths: int) -> bytes:
        return b"%d.%02d" % divmod(hundredths, 100)

    def integer(self, value: int) -> bytes:
        return b"%d" % value

    def boolean(self, value: bool) -> bytes:
        return b"true" if value else b"false"

    def time(self, value: int | str) -> bytes:
        return self.text(value) if isinstance(value, str) else self.integer(value)


class MessagePack(Json):
    """`msgpack`: a map, with maps inside."""

    def _object(self, tree: Tree, order: list[Slot]) -> bytes:
        head = bytes((0x80 | len(tree),)) if len(tree) < 16 else b"\xde" + len(tree).to_bytes(2, "big")
        return escaped(head) + b"".join([
            escaped(self.text(name)) + (self._object(item, order) if isinstance(item, dict)
                                        else _place(self, item, order)) for name, item in tree.items()])

    def text(self, value: str) -> bytes:
        return msgspec.msgpack.encode(value)

    def number(self, hundredths: int) -> bytes:
        return msgspec.msgpack.encode(hundredths / 100)

    def integer(self, value: int) -> bytes:
        return msgspec.msgpack.encode(value)

    def boolean(self, value: bool) -> bytes:
        return msgspec.msgpack.encode(value)


class Csv(Json):
    """`csv`: a row, below the names where the mapping has none. Columns that no slot is for hold numbers."""

    def __init__(self, header: tuple[str, ...], delimiter: str) -> None:
        self._header = header
        self._delimiter = delimiter

    def template(self, slots: list[Slot]) -> tuple[bytes, list[Slot]]:
        known = {slot.path: slot for slot in slots}
        columns = [known.get(name, Slot(name, "number")) for name in self._header] if self._header else slots
        order: list[Slot] = []
        delimiter = escaped(self._delimiter.encode())
        names = b"" if self._header else delimiter.join([escaped(self.text(slot.path)) for slot in columns]) + b"\n"
        return names + delimiter.join([_place(self, slot, order) for slot in columns]) + b"\n", order

    def text(self, value: str) -> bytes:
        out = io.StringIO()
        csv.writer(out, delimiter=self._delimiter, lineterminator="").writerow([value])
        return out.getvalue().encode()


class Lines(Json):
    """`line_protocol`: one line, with the time in the precision that the mapping reads."""

    def template(self, slots: list[Slot]) -> tuple[bytes, list[Slot]]:
        tags = [slot for slot in slots if slot.kind in ("site", "device")]
        fields = [slot for slot in slots if slot not in tags and slot.kind != "time"]
        times = [slot for slot in slots if slot.kind == "time"]
        order: list[Slot] = []
        head = b"".join([b"," + slot.path.encode() + b"=" + _place(self, slot, order) for slot in tags])
        body = b",".join([slot.path.encode() + b"=" + (b'"%b"' % _place(self, slot, order) if slot.kind == "constant"
                                                       else _place(self, slot, order)) for slot in fields])
        order += times
        return CONSTANT.encode() + head + b" " + body + b" " + PLACE * len(times), order

    def text(self, value: str) -> bytes:
        """A tag's value; the texts that are fields are constants."""
        return value.encode()


class Text(Json):
    """`text`: the values with spaces between them."""

    def template(self, slots: list[Slot]) -> tuple[bytes, list[Slot]]:
        order: list[Slot] = []
        return b" ".join([_place(self, slot, order) for slot in slots]), order

    def text(self, value: str) -> bytes:
        return value.encode()


def nested(slots: list[Slot]) -> Tree:
    """Slots as objects in objects: by their keys."""
    tree: Tree = {}
    for slot in slots:
        *objects, name = slot.path.split(".")
        here = tree
        for key in objects:
            here = here.setdefault(key, {})
        here[name] = slot
    return tree


def escaped(text: bytes) -> bytes:
    """Text that stands in a template as it is."""
    return text.replace(b"%", b"%%")


def _place(encoding: Encoding, slot: Slot, order: list[Slot]) -> bytes:
    if slot.kind == "constant":
        return escaped(encoding.text(slot.text))
    order.append(slot)
    return PLACE
