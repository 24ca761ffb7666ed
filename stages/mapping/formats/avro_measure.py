"""How much is in an Avro record, found by walking over it, before fastavro makes an object for each value. Pure.

fastavro goes as deep as the data say, and ends the process where that is deeper than its stack; and an array may say
that it has any number of elements that take no byte each. So what a schema makes possible is looked at once, and only
records that can be dangerous under it, or that are large, are walked over.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from stages.mapping.limits import Limits
from stages.mapping.reject import Reject

#: A record of so many bytes is walked over whatever its schema: each byte of it may take a hundred in memory.
_LARGE_BYTES: Final = 100_000
#: The same with decimals of any length: to make them takes time by the square of that; and the longest one taken.
_LARGE_DECIMALS: Final = 2_000
_MAX_DECIMAL: Final = 1_000
#: Values that a record has without taking a byte, at most, for it not to be dangerous.
_FREE_VALUES: Final = 10_000
_FIXED: Final = {"null": 0, "boolean": 1, "float": 4, "double": 8}
_MOST_VARINT_BYTES: Final = 10

#: (data, where a value begins, its depth) -> where it ends.
_Skip = Callable[[bytes, int, int], int]


class Measure:
    """Walks over records of one schema. Not thread-safe: it counts."""

    def __init__(self, schema: Any, named: Mapping[str, Any], limits: Limits) -> None:
        """The schema as fastavro has parsed it, with the types that it names."""
        self._limits = limits
        self._named = named
        self._skips: dict[str, _Skip] = {}
        self._values = 0
        self._recursive = self._free_arrays = self._decimals = False
        self._weights: dict[str, int] = {}
        weight = self._look(schema, frozenset())[1]
        self._dangerous = self._recursive or self._free_arrays or weight > _FREE_VALUES
        self._skip = self._skipper(schema)

    def check(self, data: bytes, count: int = 1) -> None:
        """Checks `count` records that begin with `data`. Raises Reject, and ValueError or EOFError for what is none."""
        large = len(data) > (_LARGE_DECIMALS if self._decimals else _LARGE_BYTES)
        if not (large or self._dangerous):
            return
        self._values = at = 0
        for _ in range(count):
            self._count()
            at = self._skip(data, at, 1)
        if at > len(data):
            raise EOFError("the data end within a record")

    def _look(self, schema: Any, within: frozenset[str]) -> tuple[int, int]:
        """Least bytes of a value, and values that it has, but for those of arrays; notes what is dangerous."""
        if isinstance(schema, list):
            return 1, 1 + max([self._look(branch, within)[1] for branch in schema], default=0)
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(kind, dict | list):
            return self._look(kind, within)
        if kind in self._named and not isinstance(schema, dict):
            return self._look_named(kind, within)
        if kind in ("record", "error"):
            return self._look_named(schema["name"], within)
        if kind in ("array", "map"):
            least, _ = self._look(schema["items" if kind == "array" else "values"], within)
            self._free_arrays = self._free_arrays or kind == "array" and least == 0
            return 1, 1
        if kind == "fixed":
            return schema["size"], 1
        if kind in ("bytes", "string") and isinstance(schema, dict) and schema.get("logicalType") == "decimal":
            self._decimals = True
        return _FIXED.get(kind, 1), 1

    def _look_named(self, name: str, within: frozenset[str]) -> tuple[int, int]:
        if name in within:
            self._recursive = True
            return 1, 1
        schema = self._named[name]
        if schema["type"] not in ("record", "error"):
            return (schema["size"] if schema["type"] == "fixed" else 1), 1
        if name not in self._weights:
            parts = [self._look(field["type"], within | {name}) for field in schema["fields"]]
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
        """A named type, which may be within itself: what skips it is made when it is first met in data."""
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
                    _, at = read_long(data, at)  # of how many bytes, which nobody has to believe
                for _ in range(abs(count)):
                    self._count()
                    if keys:
                        at = _skip_bytes(data, at, depth)
                    at = item(data, at, depth + 1)
                    if at > len(data):
                        raise EOFError("the data end within an array or map")

        return array


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """An int or long, zigzag as Avro has it, and where it ends. Raises EOFError and ValueError."""
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
    """Bytes, or a string's, and where they end. Raises EOFError and ValueError."""
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
