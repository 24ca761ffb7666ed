"""Documents of no fixed shape, and mappings with any of the options: the same seed gives the same ones.

Documents are made of texts, not of values, so that numbers, strings and keys are spelled in every way JSON has.
"""

from random import Random
from typing import Any, Final

from pipeline.config.schema import MappingConfig, RuleConfig

_KEYS: Final = (
    "site",
    "a",
    "b",
    "v",
    "ts",
    "data",
    "list",
    "tags",
    "name",
    "s.t",
    "a_b",
    "état",
    "k:1",
    "x",
    "y",
    "z",
    "w",
)
_NUMBERS: Final = (
    "0",
    "1",
    "-1",
    "20",
    "21.5",
    "21.50",
    "-0",
    "-0.0",
    "0.10",
    "1e3",
    "1E5",
    "1.5e-3",
    "1e999",
    "1e-999",
    "123456789012345678",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "123456789012345678901234567890",
    "0.1234567890123456789",
    "9" * 310,
    "100",
    "3.14",
    "7",
)
_STRINGS: Final = (
    '"a"',
    '"b c"',
    '""',
    '"x,y=z"',
    '"é"',
    '"20"',
    '"21.5"',
    '"-3"',
    '"007"',
    '"1e3"',
    '"0x1F"',
    '" 5 "',
    '"true"',
    '"off"',
    '"null"',
    r'"say \"hi\""',
    r'"C:\\x"',
    r'"l\n2"',
    r'"\u00e9"',
    r'"\ud83d\ude00"',
    r'"\ud800"',
    r'"\u0000"',
    r'"\u0001"',
    r'"a\u003ab"',
    '"12:30:00"',
    '"#x"',
    '"a\\\\"',
    r'"\t"',
    '"2024-05-06T07:08:09Z"',
    '"NaN"',
    '"-0"',
    '"9223372036854775808"',
)
_TIMES: Final = (
    "1700000000000",
    "1700000000001",
    "1700000000",
    "1700000000000000",
    "1700000000000000000",
    "-5",
    "0",
    "1.5",
    "1700000000000.5",
    "9223372036854775",
    '"1700000000000"',
    '"2024-05-06T07:08:09Z"',
    '"2024-05-06T07:08:10.5Z"',
    '"2024-05-06T07:08:59.123456789+02:00"',
    '"2024-05-06 07:08:09"',
    '"2024-03-31T02:30:00"',
    '"2024-05-06T24:00:00Z"',
    '"2024-05-06T23:59:60Z"',
    '"20240506T070809Z"',
    '"06.05.2024 07:08:09"',
    '"6.5.2024 7:8:9"',
    '"06.05.2024 07:08:60"',
    '"2024-05-06"',
    "null",
    '"soon"',
    "{}",
    "[1]",
)
_BAD: Final = (
    b"",
    b"{}",
    b"5",
    b"[]",
    b'[{"a":1}]',
    b'{"a":1',
    b'{"a":1}x',
    b"\xef\xbb\xbf" + b'{"a":1}',
    b'{"a":NaN}',
    b'{"a":"\xff"}',
    b'{"a\xff":1}',
    b'{"a":01}',
    b"null",
    b'{"a":1},\n{"b":2}',
)
#: Of each format, times that it reads.
_GOOD_TIMES: Final = {
    "epoch_s": ("1700000000", "1700000001", "1700000059", "170000000.5"),
    "epoch_ms": _TIMES[:2],
    "epoch_us": _TIMES[3:4],
    "epoch_ns": _TIMES[4:5],
    "rfc3339": _TIMES[11:14],
    "iso8601": (*_TIMES[11:16], *_TIMES[18:19]),
    "%d.%m.%Y %H:%M:%S": _TIMES[19:21],
    "%Y-%m-%dT%H:%M:%S": ('"2024-03-31T02:30:00"', '"2024-10-27T02:59:59"'),
    "%Y-%m-%d": _TIMES[22:23],
}
FORMATS: Final = (
    "epoch_s",
    "epoch_ms",
    "epoch_us",
    "epoch_ns",
    "rfc3339",
    "iso8601",
    "%d.%m.%Y %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d",
)


class Documents:
    """Makes documents of one kind: mostly with the same keys, each with its own sort of values."""

    def __init__(self, random: Random, config: MappingConfig) -> None:
        self._random = random
        self._times = _GOOD_TIMES[config.time_formats()[0]] if random.random() < 0.9 else _TIMES
        self._needed = ("ts", "name") if config.measurement_from == "field" else ("ts", "site")
        #: Some producers send the same keys, with values of the same kinds, nearly always.
        self._steady = random.random() < 0.5
        self._template = self._object(0)
        self._shuffles = random.random() < 0.3
        self._spaced = random.random() < 0.2
        self._shuffles = self._shuffles and not self._steady

    def _object(self, depth: int) -> list[tuple[str, Any]]:
        keys = self._random.sample(_KEYS, self._random.randrange(1, 7))
        if depth == 0:
            keys = list(dict.fromkeys([*self._needed, *self._random.sample(("site", "a", "v"), 2), *keys]))
        return [(key, self._sort(key, depth)) for key in keys]

    def _sort(self, key: str, depth: int) -> Any:
        if key == "ts":
            return ("time", self._times)
        if key in ("site", "name") and self._random.random() < 0.7:
            return ("string", [])
        if key == "list" and depth < 2 and not self._steady:
            return ("list", self._object(depth + 1))
        if (key in ("data", "tags") or self._random.random() < 0.1) and depth < 3:
            return ("object", self._object(depth + 1))
        kind = self._random.choice(
            ("number", "number", "string", "string", "boolean", "integer", "integer", "any")
            if self._random.random() < 0.3
            else ("number", "string", "integer")
        )
        return (kind, [])

    def message(self) -> bytes:
        """One document; now and then a bad one, or one that is unlike the others."""
        random = self._random
        if random.random() < 0.04:
            return random.choice(_BAD)
        text = self._text(self._template).encode("utf-8", "surrogatepass")
        if random.random() < 0.02:
            at = random.randrange(len(text))
            text = text[:at] + random.choice((b"", b"\\", b'"', b",", b"\n", b"\xff", b"{", b"}")) + text[at + 1 :]
        return text

    def _text(self, template: list[tuple[str, Any]]) -> str:
        random = self._random
        pairs = [(key, self._value(*sort)) for key, sort in template
                 if random.random() < (0.995 if self._steady else 0.9)]
        if random.random() < 0.02:
            pairs.append((random.choice((*_KEYS, "time")), self._value("any", [])))
        if pairs and random.random() < 0.03:
            pairs.append(random.choice(pairs))
        if self._shuffles:
            random.shuffle(pairs)
        colon, comma = (": ", ",\n ") if self._spaced else (":", ",")
        return "{" + comma.join([f"{self._key(key)}{colon}{value}" for key, value in pairs]) + "}"

    def _key(self, key: str) -> str:
        if self._random.random() < 0.02:
            return '"' + "".join([f"\\u{ord(character):04x}" for character in key]) + '"'
        return f'"{key}"'

    def _value(self, kind: str, more: Any) -> str:
        random = self._random
        if random.random() < (0.005 if self._steady else 0.03):
            return "null"
        if random.random() < (0.002 if self._steady else 0.01):
            kind = "any"
        if kind == "time":
            return str(random.choice(more if random.random() < 0.97 else _TIMES))
        if kind == "object":
            return self._text(more)
        if kind == "list":
            return "[" + ",".join([self._text(more) for _ in range(random.choice((0, 1, 1, 2, 2, 2, 3, 3)))]) + "]"
        if kind == "integer":
            return str(random.randrange(-5, 100))
        if kind == "boolean":
            return random.choice(("true", "false"))
        if kind == "any":
            return random.choice(
                (
                    random.choice(_NUMBERS),
                    random.choice(_STRINGS),
                    "true",
                    "null",
                    "[1,2]",
                    '[{"x":1}]',
                    '{"x":1}',
                    "{}",
                    "[]",
                    '["a,b",":"]',
                    '{"x":{"y":[1]}}',
                )
            )
        usual = (
            f"{random.uniform(-50, 50):.{random.randrange(4)}f}" if kind == "number" else f'"t{random.randrange(3)}"'
        )
        odd = _NUMBERS if kind == "number" else _STRINGS
        return random.choice(odd) if random.random() < (0.01 if self._steady else 0.03) else usual


def mapping(random: Random) -> MappingConfig:
    """A mapping with some of the options."""

    def some(*values: Any) -> Any:
        return random.choice(values)

    explode = some("", "", "", "list", "list", "data.list")
    tags = some((), ("site",), ("site", "a"), ("site", "data.a"), ("name", "tags.site", f"{explode or 'list'}.a"))
    rules: tuple[RuleConfig, ...] = ()
    if random.random() < 0.3:
        conditions = (
            "v > 20",
            "site == 't1'",
            "a == 1 or b != 2",
            "exists(v)",
            "not (site in ['t0', 3, null])",
            "a < v",
            "data.a == 't2'",
            "v == true",
            "name",
            "exists(data)",
            "list.a == 1",
            "x >= 't1'",
            "missing == 1",
            "1 < a",
            "'t1' == site",
            "tags.site == 't1'",
            "v == 1e3",
            "site matches '^t[01]$'",
            "a not matches '[0-9]{2}'",
            "name like 'c*'",
            "header('h') == 'h1'",
            "header('other') like 'h?' or topic() like '*'",
            "partition() > 1 and exists(header('h'))",
            "stream() == 'stream' and v > 20",
        )
        rules = tuple(
            [
                RuleConfig(
                    when=some(*conditions), **some({"then": "drop"}, {"measurement": "hot"}, {"bucket": "other"})
                )
                for _ in range(random.randrange(1, 3))
            ]
        )
    bucket = some("", "", "", "", "b-{site}", "b-{site}", "b-{data.a}")
    limits = (
        {}
        if random.random() < 0.8
        else some(
            {"max_depth": some(1, 2, 3)},
            {"max_keys": some(3, 5, 8)},
            {"max_values": some(4, 10, 20)},
            {"max_points": 2},
            {"max_payload_bytes": 300, "max_expanded_bytes": 1_000},
            {"max_payload_bytes": 330, "max_expanded_bytes": 1_200},
        )
    )
    return MappingConfig(
        measurement_from=some("topic", "topic", "static", "field", "template"),
        measurement_name="m",
        measurement_field="name",
        measurement_template="m-{site}",
        tag_fields=tags,
        tag_renames=some({}, {"site": "place"}, {"data.a": "site"}),
        tag_map_field=some("", "", "", "tags", "data.tags"),
        constant_tags=some({}, {}, {"dc": "x"}, {"site": "const"}),
        metadata_tags=some((), (), ("stream",), ("partition",), ("stream", "topic"), ("offset",)),
        header_tags=some({}, {}, {}, {"h": "site"}, {"h": "head"}),
        field_strategy=some("remaining", "remaining", "explicit"),
        field_names=some(("a", "v"), ("data", "v", "x"), ("data.a", "list.v", "s.t")),
        field_renames=some({}, {"v": "value"}, {"v": "a"}, {"data.v": "v"}),
        exclude_fields=some((), (), ("b",), ("data",), ("x", "tags.x", "ts")),
        nested=some("flatten", "flatten", "flatten", "json", "drop"),
        flatten_separator=some("_", "."),
        arrays=some("json", "json", "json", "index", "join", "drop"),
        explode=explode,
        types={}
        if random.random() < 0.6
        else {
            some("a", "v", "b", "data.a", "x", "*", "?", "data.*"): some(
                "float", "integer", "unsigned", "string", "boolean", "json", "number", "number"
            )
            for _ in range(2)
        },
        integers=some("float", "as_written"),
        on_bad_value=some("reject", "drop_field", "string"),
        on_bad_tag=some("reject", "reject", "clean"),
        on_name_clash=some("reject", "keep_last"),
        on_no_fields=some("reject", "drop"),
        timestamp_from=some("field", "field", "iggy_timestamp", "origin_timestamp", "arrival"),
        timestamp_field=some("ts", "ts", "ts", ("ts",), ("missing", "ts"), ("ts", "x"), ("x", "data.a", "ts")),
        timestamp_format=some(*FORMATS, (some(*FORMATS), some(*FORMATS))),
        timestamp_rest_field=some("", "", "", "", "x"),
        timestamp_not_before=some("", "", "", "2023-11-14T22:13:20.001Z", "2024-05-06"),
        timestamp_zone=some("UTC", "+02:00", "Europe/Berlin"),
        on_missing_timestamp=some("reject", "iggy_timestamp", "arrival"),
        merge_duplicates=some(True, False),
        type_guard=True,
        rules=rules,
        bucket_template=bucket,
        allowed_buckets=("b-t0", "b-t1", "b-t2", "b-1", "b-2") if bucket else (),
        **limits,
    )
