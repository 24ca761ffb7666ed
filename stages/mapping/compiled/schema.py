"""What messages of a topic hold, learned from them: a tree of keys, and from it generated Structs that read them.

A key is optional and may stand anywhere; one that is not known makes a message unreadable by the Structs, so that it is
noticed and learned. Values stay JSON texts (`msgspec.Raw`); those that nothing asks for are only walked over.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from pipeline.config.mapping_schema import DeclaredType
from pipeline.config.schema import MappingConfig
from pipeline.points.field_type import FieldType
from stages.mapping.compiled.tables import ABSENT, Column, Table
from stages.mapping.compiled.texts import Text
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.series import SHORT_CHARS, lead_of
from stages.mapping.reject import Reject

#: Keys of a schema, at most, also those that are known to have no place in it.
MAX_KEYS: Final = 512
#: Characters of all paths and field keys in it, at most.
MAX_CHARS: Final = 200_000
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_LIST: Final = msgspec.json.Decoder(list[Raw])
#: Characters that no Struct's field can be named with, and a NUL, which paths use themselves.
_BAD_NAME: Final = re.compile(r'["\\\x00-\x1f]')
#: A value that nothing asks for. Written again it is never longer than it was, as a float may be.
_WALKED: Final = str | int | bool | None | UnsetType


class Node(Struct, eq=False):
    """A key of a message, or the message itself."""

    path: str
    #: As `Record` has it: the field key before it is escaped.
    key: str
    #: Of the object that it is, or would be; a message's is 1.
    depth: int
    #: "elements" is the exploded array, "unexploded" the same where it has only been null.
    kind: Literal["value", "object", "elements", "unexploded", "opaque", "refused"] = "value"
    #: Of an object, by name; of the exploded array, those of its elements.
    children: dict[str, "Node"] = {}
    #: A value that is not null has been met; one that is an array or object and stays one.
    is_scalar: bool = False
    is_kept: bool = False
    #: A text has been met; and a number, true or false.
    has_texts: bool = False
    has_others: bool = False
    #: The same of a number with a fraction or an exponent.
    has_floats: bool = False
    #: A field that cannot stay together with others.
    is_apart: bool = False


class Reader(Struct, eq=False, frozen=True):
    """The generated Structs of one state of a schema."""

    decode: Callable[[bytes], Any]
    outer: Table
    #: Gives the exploded array of each message; None where there is none.
    elements: Callable[[Sequence[Any]], list[Any]] | None
    inner: Table
    #: Characters of the field keys of a point, at most, and of paths that are made for one of its elements.
    lead_chars: int
    element_chars: int
    #: Keys of one point, at most.
    keys: int


class Schema:
    """Learns what messages hold, and makes readers of them. Not thread-safe."""

    def __init__(self, rules: RecordMapper, operands: frozenset[str], keeps_texts: bool = False) -> None:
        """`operands` are the paths that conditions of rules ask for. With `keeps_texts` each value is a column of JSON
        texts.
        """
        self._keeps_texts = keeps_texts
        self._rules = rules
        self._config = rules.config
        self._limits = rules.flattener.limits
        self._operands = operands
        self._bucket_paths = frozenset(rules.config.bucket_paths())
        self._most_keys = min(MAX_KEYS, self._limits.keys, self._limits.values)
        self._most_chars = min(MAX_CHARS, self._limits.expanded)
        self.forget()

    def forget(self) -> None:
        """Knows nothing from now on."""
        self.root = Node("", "", 1, "object", {})
        self._elements: Node | None = None
        self._paths: set[str] = set()
        self.keys = self._chars = 0
        #: Whether a key had no room.
        self.is_full = False

    def learn(self, payload: bytes) -> bool:
        """Learns from a message that was found right. Whether it had something new."""
        before = self.keys, self._kinds
        try:
            self._learn_object(self.root, payload, in_element=False)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Reject):
            pass
        return before != (self.keys, self._kinds)

    _kinds = 0

    def _learn_object(self, node: Node, text: bytes | Raw, in_element: bool) -> None:
        for name, raw in _OBJECT.decode(text).items():
            child = node.children.get(name)
            if child is None:
                child = self._new(node, name, in_element)
                if child is None:
                    return
            if child.kind not in ("opaque", "refused"):
                self._learn_value(child, str(raw, "utf-8"), in_element)

    def _new(self, node: Node, name: str, in_element: bool) -> Node | None:
        """A node for a key; None where there is no room."""
        if node is self._elements:
            path, key = self._rules.flattener.element_path(name), name
        elif node is self.root:
            path, key = name, name
        else:
            path, key = f"{node.path}.{name}", f"{node.key}{self._config.flatten_separator}{name}"
        chars = len(path) + len(key)
        if self.keys >= self._most_keys or self._chars + chars > self._most_chars:
            self.is_full = True
            return None
        self.keys += 1
        self._chars += chars
        child = node.children[name] = Node(path, key, node.depth + 1, "value", {})
        overrides = in_element and path in self._rules.times.paths
        if _BAD_NAME.search(name) or not path or path in self._paths and not overrides:
            child.kind = "refused"
        elif self._rules.is_excluded(path):
            child.kind = "opaque"
        elif path == self._config.explode and not in_element:
            child.kind = "unexploded"
        self._paths.add(path)
        return child

    def _learn_value(self, node: Node, text: str, in_element: bool) -> None:
        first = text[0]
        if node.kind in ("unexploded", "elements"):
            depth = self._config.explode.count(".") + 3
            if first == "[" and node.kind == "unexploded" and depth <= self._limits.depth:
                self._become(node, "elements")
                self._elements = node
                node.depth = depth
            if first == "[" and node is self._elements:
                for element in _LIST.decode(text):
                    self._learn_object(node, element, in_element=True)
        elif first in "{[":
            treatment = self._rules.flattener.treatment(node.path, first)
            if treatment == "open" and not node.is_scalar and node.depth <= self._limits.depth:
                if node.kind == "value":
                    self._become(node, "object")
                self._learn_object(node, text.encode(), in_element)
            elif treatment in ("keep", "drop") and node.kind == "value" and not node.is_kept:
                node.is_kept = True
                self._kinds += 1
        elif text != "null" and node.kind == "value":
            node.is_scalar = True
            before = node.has_texts, node.has_others, node.has_floats
            node.has_texts |= first == '"'
            node.has_others |= first != '"'
            node.has_floats |= first not in '"tf' and not text.lstrip("-").isdigit()
            self._kinds += before != (node.has_texts, node.has_others, node.has_floats)

    def _become(self, node: Node, kind: Literal["object", "elements"]) -> None:
        node.kind = kind
        self._kinds += 1

    def reader(self) -> Reader | None:
        """Structs for what is known; None where nothing can be made of it."""
        # Of two values that would have one field key, or that of a tag, the second has no place.
        self._leads = {lead_of(self._rules.heads.tag_key(node.path, node.key)) for node in _values(self.root)
                       if self._rules.heads.tag_key(node.path, node.key)} | self._rules.heads.outer_leads
        outer, elements = Table(""), None
        struct = self._struct(self.root, outer)
        inner = Table("")
        path: list[int] = []
        if self._elements is not None:
            found = self._path_to(self.root, self._elements)
            if found is None:
                return None
            path, inner = found, self._inner
            elements = _getter(path)
        columns = [*outer.all_columns(), *inner.all_columns()]
        if self._rules.time_path and not any(column.is_time for column in columns):
            return None
        if not any(column.lead for column in columns):
            return None
        return Reader(msgspec.json.Decoder(struct).decode, outer, elements, inner,
                      sum([len(column.lead) + 2 for column in columns]),
                      sum([len(node.path) + len(node.key) for node in _values(self._elements or self.root)]), self.keys)

    def _struct(self, node: Node, table: Table) -> Any:
        """A Struct for an object; fills its table."""
        fields: list[tuple[str, Any, Any]] = []
        names: dict[str, str] = {}
        for number, (name, child) in enumerate(node.children.items()):
            made = self._made(child, name, table, number)
            if made is not None:
                fields.append((f"f{number}", *made))
                names[f"f{number}"] = name
                table.defaults[number] = made[1]
        table.keep_together()
        return msgspec.defstruct("Read", fields, rename=names, forbid_unknown_fields=True, omit_defaults=True,
                                 eq=False, gc=False)

    def _made(self, node: Node, name: str, table: Table, number: int) -> tuple[Any, Any] | None:
        """Type and default of a Struct's field; None where the key has no place."""
        if node.kind == "object":
            within = Table(f"{node.key}{self._config.flatten_separator}")
            struct = self._struct(node, within)
            if any(True for _ in within.all_columns()):
                table.tables.append((number, struct(), within))
            return struct | None | UnsetType, UNSET
        if node.kind == "elements":
            self._inner = Table("")
            return list[self._struct(node, self._inner)] | None | UnsetType, UNSET  # type: ignore[misc]
        if node.kind == "unexploded":
            return None | UnsetType, UNSET
        if node.kind == "refused":
            return None
        column = self._column(node, name)
        if column is None:
            return None
        if column.lead or column.in_head or column.is_time or column.is_operand or (
                (node.is_kept or node.has_floats) and not column.is_excluded):
            table.columns[number] = column
            return (Text, UNSET) if column.is_text else (Raw, ABSENT)
        return (Raw, ABSENT) if column.is_excluded else (_WALKED, UNSET)

    def _column(self, node: Node, name: str) -> Column | None:
        rules, path = self._rules, node.path
        if node.kind == "opaque":
            return Column(path, name, node.key, node.depth, "", False, False, path in self._operands, False, True)
        try:
            lead = rules.lead(path, node.key)
        except Reject:
            return None
        if lead:
            if lead in self._leads or len(lead) > SHORT_CHARS:
                return None
            self._leads.add(lead)
        in_head = rules.heads.contains(path) or path in self._bucket_paths or (
            path != "" and path == self._config.tag_map_field)
        declared = rules.types.of(path)
        is_text = node.has_texts and not (node.has_others or node.is_kept or self._keeps_texts) and (
            not lead or declared in (None, "string"))
        kinds = frozenset[FieldType]()
        if not (node.has_texts or node.is_apart or self._keeps_texts):
            kinds = plain_kinds(self._config, declared)
        return Column(path, name, node.key, node.depth, lead, in_head, path in rules.times.paths,
                      path in self._operands, any(operand.startswith(f"{path}.") for operand in self._operands),
                      plain_kinds=kinds, is_text=is_text)

    def set_apart(self, columns: Sequence[Column]) -> None:
        """Gives fields columns of their own from now on."""
        paths = {column.path for column in columns}
        for node in _all(self.root):
            node.is_apart |= node.path in paths

    def _path_to(self, node: Node, wanted: Node) -> list[int] | None:
        """Numbers of the Structs' fields that lead to a node."""
        for number, child in enumerate(node.children.values()):
            if child is wanted:
                return [number]
            if child.kind == "object" and (path := self._path_to(child, wanted)) is not None:
                return [number, *path]
        return None

    def asks_for_more(self) -> bool:
        """Whether conditions ask for what is no value of its own: an object, or what is in one that stays closed."""
        if not self._operands:
            return False
        nodes = {node.path: node for node in _all(self.root)}
        for path in self._operands:
            names = path.split(".")
            before = [nodes.get(".".join(names[:count])) for count in range(1, len(names))]
            if any(node is not None and (node.is_kept or node.kind not in ("value", "object")) for node in before):
                return True
            node = nodes.get(path)
            if node is not None and node.kind != "value" and not (node.kind == "opaque" and len(names) == 1
                                                                  and node.depth == 2):
                return True
        return False


def plain_kinds(config: MappingConfig, declared: DeclaredType | None) -> frozenset[FieldType]:
    """The types of a field's values whose JSON texts stand in lines as they are; numbers as floats."""
    numbers: tuple[FieldType, ...] = () if config.integers == "as_written" else ("float",)
    if declared is None:
        return frozenset((*numbers, "boolean"))
    if declared == "number":
        return frozenset((*numbers, "boolean"))
    return frozenset((declared,) if declared in ("float", "boolean") else ())


def _getter(path: list[int]) -> Callable[[Sequence[Any]], list[Any]]:
    """Gives what is at a path of Structs within Structs; None where one of them is null."""
    *before, last = path

    def get(structs: Sequence[Any]) -> list[Any]:
        found: Sequence[Any] = structs
        for number in before:
            found = [getattr(one, f"f{number}") if one else None for one in found]
        return [getattr(one, f"f{last}") if one else None for one in found]

    return get


def _all(node: Node) -> Iterator[Node]:
    for child in node.children.values():
        yield child
        yield from _all(child)


def _values(node: Node) -> Iterator[Node]:
    return (child for child in _all(node) if child.kind == "value")
