"""Measurement, tags and bucket of many messages: by the texts that they are made of, once for each combination."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw

from stages.mapping.budget import cost_of
from stages.mapping.compiled.columns import texts_of
from stages.mapping.compiled.tables import Column
from stages.mapping.compiled.texts import Text, json_of
from stages.mapping.records.conditions import METADATA_PREFIX, SOURCE_NAMES, all_paths_of, header_of, source_of
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.routing import Route, value_of
from stages.mapping.records.series import SHORT_CHARS, Origin
from stages.mapping.reject import Reject

#: What an entry costs beside its texts, bytes.
_ENTRY_BYTES: Final = 300
#: The choice of a message that no rule is for.
NO_RULE: Final = -1
_NOWHERE: Final = Route("", "")
_VALUES: Final = msgspec.json.Decoder(list[Any])


class Series(NamedTuple):
    """Where a point belongs."""

    #: Measurement and tags, escaped.
    head: str
    measurement: str
    bucket: str


class SeriesColumns:
    """The series of messages of one partition. Not thread-safe."""

    def __init__(self, rules: RecordMapper, columns: Sequence[Column], partition: int) -> None:
        self._rules = rules
        self._columns = columns
        self._partition = partition
        self._headers = len(rules.config.header_tags)
        #: By the texts of the columns, then the headers, then the number of the rule that holds.
        self._known: dict[tuple[Any, ...], Series] = {}
        self._share = rules.budget.share(self._known.clear)
        #: Characters of the longest head.
        self.longest = 0

    def series(self, texts: Sequence[Sequence[str]], headers: Sequence[tuple[str, ...]] | None,
               choices: Sequence[int] | None, count: int, bad: set[int]) -> list[Series]:
        """The series of `count` messages, by the values of each column; `choices` are those of `RuleChooser`.

        Indices of messages that need the exact rules are added to `bad`.
        """
        more: list[Sequence[Any]] = []
        if self._headers:
            more.append([some[:self._headers] for some in headers] if headers else [()] * count)
        if choices is not None:
            more.append(choices)
        columns = [*texts, *more]
        found = list(map(self._known.get, zip(*columns, strict=True) if columns else [()] * count))
        if None in found:
            self._make(list(zip(*columns, strict=True)) if columns else [()] * count, found, bad)
        return found  # type: ignore[return-value]

    def _make(self, keys: list[tuple[Any, ...]], found: list[Series | None], bad: set[int]) -> None:
        made: dict[tuple[Any, ...], Series | None] = {}
        for index, series in enumerate(found):
            if series is not None:
                continue
            key = keys[index]
            if key not in made:
                made[key] = self._made(key)
            found[index] = made[key] or _NO_SERIES
            if made[key] is None:
                bad.add(index)

    def _made(self, key: tuple[Any, ...]) -> Series | None:
        """The series of one combination; None where the exact rules have to say more of it."""
        rules = self._rules
        record = {}
        texts = [json_of(value) if column.is_text else value
                 for column, value in zip(self._columns, key, strict=False)]
        for column, text in zip(self._columns, texts, strict=True):
            if text[0] in "{[":
                return None
            if text != "\0":
                record[column.path] = column.key, text
        rest = list(key[len(self._columns):])
        headers: tuple[str, ...] = rest.pop(0) if self._headers else ()
        route = rules.router.rules[rest[0]][2] if rules.router is not None and rest and rest[0] != NO_RULE else _NOWHERE
        # Tags are counted when they are first met: by the exact rules, in the message's order, where they reject it.
        heads, counted = rules.heads, list[tuple[str, str]]()
        count, heads.seen = heads.seen, lambda key, value: counted.append((key, value))
        try:
            if rules.router is not None:
                route = rules.router.with_bucket(route, record)
            made = heads.head(record, Origin(self._partition, headers=headers), route.measurement)
        except Reject:
            heads.forget_pieces()
            return None
        finally:
            heads.seen = count
            noticed = bool(rules.notices.pending)
            rules.notices.drop()
        for tag, value in counted:
            count(tag, value)
        head = made.measurement + made.tags
        if noticed or made.moved or len(head) > SHORT_CHARS:
            return None
        series = Series(head, made.measurement, route.bucket)
        self.longest = max(self.longest, len(head))
        if self._share.takes(_ENTRY_BYTES + cost_of(head, *texts, *headers)):
            self._known[key] = series
        return series


_NO_SERIES: Final = Series("", "", "")


class RuleChooser:
    """Which of the mapping's rules holds for each of many messages."""

    def __init__(self, rules: RecordMapper, columns: Sequence[Column]) -> None:
        """`columns` are those that the conditions ask for; another path is missing."""
        self._columns = columns
        asked = dict.fromkeys([path for rule in rules.config.rules for path in all_paths_of(rule.when)
                               if path.startswith(METADATA_PREFIX)])
        known = {f"{METADATA_PREFIX}{name}()": repr(value) for name, value in rules.heads.names.items()}
        headers = rules.config.point_headers()
        #: What the conditions ask for beside the message: number of the header, or None for the partition.
        self._beside = [headers.index(name) if (name := header_of(path)) else None
                        for path in asked if path not in known]
        #: In the order of the function's arguments.
        paths = [*[column.path for column in columns], *[path for path in asked if path not in known]]
        names = {path: f"v{number}" for number, path in enumerate(paths)}
        values = names | known
        source = str(NO_RULE)
        for number, rule in reversed(list(enumerate(rules.config.rules))):
            source = f"{number} if {source_of(rule.when, values)} else {source}"
        arguments = ", ".join([f"c{number}" for number in range(len(names))])
        variables = ", ".join(names.values())
        #: Python source of the function that chooses.
        self.source = f"def choose({arguments}):\n    return [{source} for {variables}, in zip({arguments})]\n"
        made: dict[str, Any] = dict(SOURCE_NAMES)
        if names:
            exec(compile(self.source, "<rules>", "exec"), made)  # nosec B102  # of parsed conditions, constants by repr
            self._choose: Callable[..., list[int]] = made["choose"]
        self.drops = frozenset([number for number, rule in enumerate(rules.config.rules) if rule.then == "drop"])
        self._constant = 0 if names else eval(source, made)  # nosec B307  # the same

    def choices(self, raws: Sequence[Sequence[Any]], partition: int, headers: Sequence[tuple[str, ...]] | None,
                count: int, bad: set[int]) -> list[int]:
        """The number of the first rule that holds for each message, or NO_RULE.

        Indices of messages that need the exact rules are added to `bad`.
        """
        return self.chosen([_compared(values, bad) if column.is_text else _values(values, bad)
                            for column, values in zip(self._columns, raws, strict=True)], partition, headers, count)

    def chosen(self, values: Sequence[Sequence[Any]], partition: int, headers: Sequence[tuple[str, ...]] | None,
               count: int) -> list[int]:
        """The same by what conditions compare."""
        if not values and not self._beside:
            return [self._constant] * count
        beside = [[partition] * count if number is None else _header_values(headers, number, count)
                  for number in self._beside]
        return self._choose(*values, *beside)


def _header_values(headers: Sequence[tuple[str, ...]] | None, number: int, count: int) -> Sequence[Any]:
    """The values of one header; None where it is missing or empty."""
    return [None] * count if headers is None else [some[number:number + 1] and some[number] or None
                                                   for some in headers]


def _compared(values: Sequence[Text], bad: set[int]) -> Sequence[Any]:
    """What conditions compare of values that were read as texts."""
    if UNSET in values:
        values = [None if value is UNSET else value for value in values]
    if any(["\0" in value for value in set(values) if value]):
        bad.update([index for index, value in enumerate(values) if value and "\0" in value])
    return values


def _values(raws: Sequence[Raw], bad: set[int]) -> list[Any]:
    """What conditions compare."""
    joined = b",".join(raws)
    if b"[" not in joined and b"{" not in joined:
        try:
            values: list[Any] = _VALUES.decode(b"[" + joined.replace(b"\0", b"null") + b"]")
            return values
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    out: list[Any] = []
    for index, text in enumerate(texts_of(raws)):
        if text[0] in "{[":
            bad.add(index)
            out.append(None)
        else:
            out.append(None if text == "\0" else value_of(text))
    return out
