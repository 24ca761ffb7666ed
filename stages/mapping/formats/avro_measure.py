"""Checks the limits of an Avro record by walking over its bytes, before fastavro makes objects of its values. Pure.

fastavro follows any nesting in the data, and overflows its stack on deep ones; an array may claim any number of
elements of no bytes each. The schema is examined once, and only records that can be dangerous under it, or are large,
are walked over.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from stages.mapping.limits import Limits
from stages.mapping.reject import Reject

#: Records larger than this are walked over whatever their schema: each byte may take a hundred bytes in memory.
_LARGE_BYTES: Final = 100_000
#: The same if the schema has decimals, since converting one takes quadratic time; and the longest decimal accepted.
_LARGE_DECIMALS: Final = 2_000
_MAX_DECIMAL: Final = 1_000
#: Most values without bytes that a record may have before its schema counts as dangerous.
_FREE_VALUES: Final = 10_000
_FIXED: Final = {"null": 0, "boolean": 1, "float": 4, "double": 8}
_MOST_VARINT_BYTES: Final = 10

#: (data, start of a value, its depth) -> its end.
_Skip = Callable[[bytes, int, int], int]


class Measure:
    """Walks over records of one schema. Not thread-safe: it counts values."""

    def __init__(self, schema: Any, named: Mapping[str, Any], limits: Limits) -> None:
        """`schema` as parsed by fastavro; `named`: its named types."""
        self._limits = limits
        self._named = named
        self._skips: dict[str, _Skip] = {}
        self._values = 0
        self._recursive = self._free_arrays = self._decimals = False
        self._weights: dict[str, int] = {}
        weight = self._examine(schema, frozenset())[1]
        self._dangerous = self._recursive or self._free_arrays or weight > _FREE_VALUES
        self._skip = self._skipper(schema)
        #: Records that are no longer need no check.
        self.harmless_bytes = -1 if self._dangerous else _LARGE_DECIMALS if self._decimals else _LARGE_BYTES

    def check(self, data: bytes, count: int = 1) -> None:
        """Checks `count` records at the start of `data`. Raises Reject, or ValueError and EOFError for invalid data."""
        if len(data) <= self.harmless_bytes:
            return
        self._values = at = 0
        for _ in range(count):
            self._count()
            at = self._skip(data, at, 1)
        if at > len(data):
            raise EOFError("the data end within a record")

    def _examine(self, schema: Any, within: frozenset[str]) -> tuple[int, int]:
        """Least bytes of a value, and the number of values in it without arrays. Records what is dangerous."""
        if isinstance(schema, list):
            return 1, 1 + max([self._examine(branch, within)[1] for branch in schema], default=0)
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(kind, dict | list):
            return self._examine(kind, within)
        if kind in self._named and not isinstance(schema, dict):
            return self._examine_named(kind, within)
        if kind in ("record", "error"):
            return self._examine_named(schema["name"], within)
        if kind in ("array", "map"):
            least, _ = self._examine(schema["items" if kind == "array" else "values"], within)
            self._free_arrays = self._free_arrays or kind == "array" and least == 0
            return 1, 1
        if kind == "fixed":
            return schema["size"], 1
        if kind in ("bytes", "string") and isinstance(schema, dict) and schema.get("logicalType") == "decimal":
            self._decimals = True
        return _FIXED.get(kind, 1), 1

    def _examine_named(self, name: str, within: frozenset[str]) -> tuple[int, int]:
        if name in within:
            self._recursive = True
            return 1, 1
        schema = self._named[name]
        if schema["type"] not in ("record", "error"):
            return (schema["size"] if schema["type"] == "fixed" else 1), 1
        if name not in self._weights:
            parts = [self._examine(field["type"], within | {name}) for field in schema["fields"]]
            self._weights[name] = sum(weight for _, weight in parts) + 1
            self._weights[f"{name} bytes"] = sum(least for least, _ in parts)
        return self._weights[f"{name} bytes"], self._weights[name]

    def _count(self) -> None:
        self._values += 1
        if self._values > self._limits.values:
            self._limits.check_values(self._values)

    def _skipper(self, schema: Any) -> _Skip:
        if isinstance(schema, list):
            return self._union([self._skipper(branch) for branch in schema])
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(kind, dict | list):
            return self._skipper(kind)
        if kind in ("record", "error", "fixed", "enum"):
            return self._by_name(schema["name"])
        if kind == "array":
            return self._array(self._skipper(schema["items"]), keys=False)
        if kind == "map":
            return self._array(self._skipper(schema["values"]), keys=True)
        if kind in ("int", "long"):
            return lambda data, at, depth: read_long(data, at)[1]
        if kind in ("bytes", "string"):
            return _decimal if isinstance(schema, dict) and schema.get("logicalType") == "decimal" else _skip_bytes
        if kind in _FIXED:
            size = _FIXED[kind]
            return lambda data, at, depth: at + size
        return self._by_name(kind)

    def _by_name(self, name: str) -> _Skip:
        """Skips a named type. It may contain itself, so its function is made when data first has the type."""
        def skip(data: bytes, at: int, depth: int) -> int:
            found = self._skips.get(name)
            if found is None:
                found = self._skips[name] = self._definition(self._named[name])
            return found(data, at, depth)

        return skip

    def _definition(self, schema: Any) -> _Skip:
        if schema["type"] == "fixed":
            size = schema["size"]
            return lambda data, at, depth: at + size
        if schema["type"] == "enum":
            return lambda data, at, depth: read_long(data, at)[1]
        fields = [self._skipper(field["type"]) for field in schema["fields"]]

        def record(data: bytes, at: int, depth: int) -> int:
            self._limits.check_depth(depth)
            for field in fields:
                self._count()
                at = field(data, at, depth + 1)
                if at > len(data):
                    raise EOFError("the data end within a record")
            return at

        return record

    def _union(self, branches: list[_Skip]) -> _Skip:
        def union(data: bytes, at: int, depth: int) -> int:
            index, at = read_long(data, at)
            if not 0 <= index < len(branches):
                raise ValueError(f"a union has no branch {index}")
            return branches[index](data, at, depth)

        return union

    def _array(self, item: _Skip, keys: bool) -> _Skip:
        def array(data: bytes, at: int, depth: int) -> int:
            self._limits.check_depth(depth)
            while True:
                count, at = read_long(data, at)
                if count == 0:
                    return at
                if count < 0:
                    _, at = read_long(data, at)  # the block's size in bytes, which is not trusted
                for _ in range(abs(count)):
                    self._count()
                    if keys:
                        at = _skip_bytes(data, at, depth)
                    at = item(data, at, depth + 1)
                    if at > len(data):
                        raise EOFError("the data end within an array or map")

        return array


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """An int or long (variable-length zigzag), and its end. Raises EOFError and ValueError."""
    shift = value = 0
    for index in range(at, at + _MOST_VARINT_BYTES):
        if index >= len(data):
            raise EOFError("the data end within a number")
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), index + 1
        shift += 7
    raise ValueError("a number takes more than ten bytes")


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """Bytes, or the bytes of a string, and their end. Raises EOFError and ValueError."""
    size, at = read_long(data, at)
    if size < 0:
        raise ValueError("a length is negative")
    if at + size > len(data):
        raise EOFError("the data end within bytes")
    return data[at:at + size], at + size


def _skip_bytes(data: bytes, at: int, _depth: int) -> int:
    size, at = read_long(data, at)
    if size < 0:
        raise ValueError("a length is negative")
    return at + size


def _decimal(data: bytes, at: int, _depth: int) -> int:
    size, at = read_long(data, at)
    if size > _MAX_DECIMAL:
        raise Reject("bad_field", f"a decimal of {size} bytes, more than {_MAX_DECIMAL}")
    if size < 0:
        raise ValueError("a length is negative")
    return at + size
