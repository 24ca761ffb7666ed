"""Messages as devices send them: of a few shapes, mostly plain, with something odd now and then."""

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

from pipeline.config.schema import MappingConfig, RuleConfig
from pipeline.points.escape import Unwritable
from stages.mapping.encoder import BatchOrigin
from stages.mapping.reject import Reject
from tests.fuzz.general import OneSide

_TIME_MICROS: Final = 1_700_000_000_000_000
_NAMES: Final = ("temp", "temp1", "temp2", "v.1", "x-y", "ok", "état", "a b", "a=b", "c,d", "n", "count", "t", "q:r",
                 "br{ace", "rssi", "time2", "e", "state")
_TEXTS: Final = ("run", "idle", "", 'a"b', "back\\slash", "x,y", "q:r", "new\nline", "{}", "2d", "é", "\0nul", "NaN",
                 "true", "5", "null")
_NUMBERS: Final = ("-0", "0.0", "7", "120", "-3.25", "19.5")
#: What no field is plain with, and what no message is good with.
_ODD: Final = ("1e5", "1.5E-7", "1e400", "1e-999", "{}", '{"a":1}', '{"z":{"y":[]}}', "[]", "[1,2]", '[{"a":1}]',
               "[1,\n2]", "1" * 400, "0." + "3" * 350, "9" * 18, "9" * 25, r'"\ud800"', r'"\u0000"', r'"\u003a"', "nul",
               "01", "-", '"a')
_RULES: Final = (
    RuleConfig(when="temp > 10", then="drop"), RuleConfig(when="site == 's1'", measurement="hot"),
    RuleConfig(when="state == 'idle'", bucket="b-idle"), RuleConfig(when="header('h') == 'h1'", then="drop"),
    RuleConfig(when="exists(in.temp) and not ok", measurement="other"),
    RuleConfig(when="state in ['run', 'x']", then="drop"), RuleConfig(when="t", measurement="t"))


class Devices:
    """Makes messages of one shape."""

    def __init__(self, random: Random) -> None:
        self._random = random
        is_one_kind = random.random() < 0.4
        kinds = "nnnb" if is_one_kind else "nnnnbbtm"
        self._kinds = {name: random.choice(kinds) for name in random.sample(_NAMES, random.randrange(2, 9))}
        self._inner = {name: random.choice(kinds) for name in random.sample(_NAMES, random.randrange(1, 5))}
        self._odd = random.choice((0, 0, 0.001, 0.01, 0.1))
        self._missing = 0 if is_one_kind else random.choice((0, 0, 0.3))
        self._nulls = 0 if is_one_kind else random.choice((0, 0, 0.02, 0.3))
        self._is_shuffled = not is_one_kind and random.random() < 0.2
        self._separators = random.choice(((",", ":"), (", ", ": ")))
        self.explodes = random.random() < 0.2
        self._number = 0

    def _value(self, kind: str) -> str:
        random = self._random
        if random.random() < self._nulls:
            return "null"
        if random.random() < self._odd:
            return random.choice((*_ODD, self._value("n"), self._value("t")))
        if kind == "n":
            return random.choice(_NUMBERS) if random.random() < 0.5 else f"{random.uniform(-99, 99):.2f}"
        if kind == "b":
            return random.choice(("true", "false"))
        if kind == "t":
            return json.dumps(random.choice(_TEXTS[:2] if random.random() < 0.95 else _TEXTS),
                              ensure_ascii=random.random() < 0.5)
        return self._value(random.choice("nbt"))

    def _members(self, kinds: dict[str, str]) -> list[tuple[str, str]]:
        random = self._random
        members = [(name, self._value(kind)) for name, kind in kinds.items() if random.random() >= self._missing]
        if random.random() < self._odd:
            members.append((f"new{random.randrange(3)}", self._value("n")))
        if random.random() < self._odd and members:
            members.append(members[0])
        return members

    def _text(self, members: list[tuple[str, str]]) -> str:
        comma, colon = self._separators
        return "{" + comma.join([json.dumps(name, ensure_ascii=False) + colon + value for name, value in members]) + "}"

    def message(self) -> bytes:
        """The next one."""
        random = self._random
        self._number += 1
        time = str(1_700_000_000_000 + self._number) if random.random() >= self._odd else self._value("t")
        members = [("site", f'"s{random.randrange(3)}"'), ("ts", time), *self._members(self._kinds)]
        if random.random() >= self._missing:
            members.append(("in", self._text(self._members(self._inner)) if random.random() >= self._nulls else "null"))
        if self.explodes:
            elements = [self._text([*self._members(self._inner), ("s", f'"e{index}"')])
                        for index in range(random.randrange(1, 4))]
            members.append(("list", f"[{','.join(elements)}]"))
        if self._is_shuffled:
            random.shuffle(members)
        return self._text(members).encode()

    def mapping(self) -> MappingConfig:
        """One that these messages are meant for."""
        random = self._random
        names, (inner, *_) = [*self._kinds], self._inner
        choices: list[tuple[float, Callable[[], dict[str, Any]]]] = [
            (0.8, lambda: {"timestamp_from": "field", "timestamp_field": "ts", "timestamp_format": "epoch_ms"}),
            (0.2, lambda: {"integers": "as_written"}),
            (0.3, lambda: {"types": {random.choice(names): random.choice((
                "float", "integer", "string", "boolean", "number", "json"))}}),
            (0.3, lambda: {"field_renames": {random.choice(names): random.choice(("renamed", "a b", "x:y", 'q"')),
                                             f"in.{inner}": "inner"}}),
            (0.2, lambda: {"field_strategy": "explicit", "field_names": (*random.sample(names, 2), f"in.{inner}")}),
            (0.2, lambda: {"exclude_fields": (random.choice(names),)}),
            (0.3, lambda: {"on_bad_value": random.choice(("drop_field", "string"))}),
            (0.3, lambda: {"on_no_fields": "drop"}),
            (0.3, lambda: {"nested": random.choice(("json", "drop"))}),
            (0.2, lambda: {"flatten_separator": "."}),
            (0.4, lambda: {"rules": tuple(random.sample(_RULES, 2)), "allowed_buckets": ("b-idle",)}),
            (0.2, lambda: {"bucket_template": "b-{site}", "allowed_buckets": ("b-s0", "b-s1", "b-idle")}),
            (0.2, lambda: {"header_tags": {"h": "header"}}),
            (0.15, lambda: {"measurement_from": "field", "measurement_field": "site"})]
        options: dict[str, Any] = {"tag_fields": ("site", "s") if self.explodes else ("site",),
                                   "on_name_clash": "keep_last", "explode": "list" if self.explodes else ""}
        for chance, more in choices:
            if random.random() < chance:
                options |= more()
        return MappingConfig(**options)


def try_devices(seed: int, counts: dict[str, int] | None = None) -> list[str]:
    """What is wrong with the messages and the mapping that a seed makes; empty where nothing is."""
    random = Random(seed)
    devices = Devices(random)
    config, precision, guarded, templates = (
        devices.mapping(), random.choice(("ms", "ns", "s")), random.random() < 0.5, random.random() < 0.6)
    try:
        exact, ours = (OneSide(config, precision, compiled, guarded, templates) for compiled in (False, True))
    except (Unwritable, Reject):
        return []
    first, names = 0, config.header_names()
    for number in range(3):
        payloads = [devices.message() for _ in range(random.choice((1, 30, 150)))]
        headers = [tuple([random.choice(("", "h1", "h2")) for _ in names]) for _ in payloads] if names else None
        origin = BatchOrigin(2, first, None, [_TIME_MICROS + index for index in range(len(payloads))],
                             _TIME_MICROS + 100_000_000, headers)
        first += len(payloads)
        expected, found = exact.encode(payloads, origin), ours.encode(payloads, origin)
        if (found, ours.seen) != (expected, exact.seen):
            return [f"batch {number}: {found} {ours.seen}\n  instead of {expected} {exact.seen}\n  for {payloads}\n"
                    f"  by {config} {precision} guarded: {guarded}"]
        if counts is not None:
            counts["messages"] = counts.get("messages", 0) + len(payloads)
    if counts is not None:
        counts["general"] = counts.get("general", 0) + ours.encoder.general.written
        counts["templates"] = counts.get("templates", 0) + ours.encoder.templates.written
    return []
