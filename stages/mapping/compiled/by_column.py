"""The way of formats that are read by column: what the general way does with columns, without JSON in between."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from stages.mapping.compiled.code import AllByRules, Code, Misfit, Part
from stages.mapping.compiled.columns import SAFE_CHARS, JoinedTexts
from stages.mapping.compiled.fields import Taken
from stages.mapping.compiled.schema import Schema
from stages.mapping.compiled.supported import can_go_generally
from stages.mapping.compiled.tables import Column
from stages.mapping.compiled.written import Written, joined
from stages.mapping.cpu_limit import CpuLimit
from stages.mapping.formats.column_texts import ReadColumns
from stages.mapping.records.conditions import paths_of
from stages.mapping.records.mapper import RecordMapper

#: Payloads that are read at once: their columns stay in the processor's caches, mostly.
_AT_ONCE: Final = 1_000
#: Sets of columns that code is kept of, at most.
_MOST_CODES: Final = 64
#: Times that some are tried without those that were found not to fit.
_TRIES: Final = 3
#: Bytes of JSON for a byte of a payload, at most: a control character becomes \u0001.
_GROWTH: Final = 6
#: Batches with fewer payloads are read one by one: the columns of so few cost more.
LEAST_PAYLOADS: Final = 8
#: Batches between two attempts, at most, where less than half of the payloads fit.
_MOST_PAUSE: Final = 64


class _Table:
    """One set of columns: what is made of each."""

    def __init__(self, code: Code, columns: list[Column | None], chars: int) -> None:
        self.code = code
        #: None: nothing is made of it.
        self.columns = columns
        #: Bytes of JSON beside the values.
        self.chars = chars


class ByColumn:
    """The way by column of one topic. Not thread-safe."""

    def __init__(self, rules: RecordMapper, read: ReadColumns, cpu: CpuLimit) -> None:
        """`rules` are such that messages can go the general way."""
        self._rules = rules
        self._read = read
        self._cpu = cpu
        self._limits = rules.flattener.limits
        self._most_bytes = min(rules.config.max_payload_bytes, self._limits.expanded, 2 * self._limits.values - 1)
        self.is_possible = can_go_generally(rules) and not rules.config.explode
        self._tables: dict[tuple[tuple[str, ...], ...], _Table | None] = {}
        self.least_payloads = LEAST_PAYLOADS
        #: Batches to go until the next attempt, and how many there were between the last two.
        self._until = 0
        self._pause = 1
        #: Messages that were written this way, or dropped.
        self.written = 0

    def forget_series(self) -> None:
        """Forgets measurements and tags: they are to be made otherwise from now on."""
        for table in self._tables.values():
            if table is not None:
                table.code.series.clear()

    def encode(self, payloads: Sequence[bytes], times: Sequence[int] | None, partition: int,
               headers: Sequence[tuple[str, ...]] | None, most_bytes: int) -> tuple[Written | None, list[int], int]:
        """The points of those payloads that fit; the indices of the others; how many were dropped on purpose."""
        self._until -= 1
        if self._until > 0 or len(payloads) < self.least_payloads:
            return None, list(range(len(payloads))), 0
        parts: list[Written] = []
        rest: list[int] = []
        dropped = 0
        for begin in range(0, len(payloads), _AT_ONCE):
            self._cpu.begin()
            some = payloads[begin:begin + _AT_ONCE]
            end = begin + len(some)
            done, misfits, left_out = self._part(
                some, Part([], times and times[begin:end], headers and headers[begin:end], partition, False,
                           not rest), most_bytes)
            if done is not None:
                parts.append(done._replace(messages=[begin + at for at in done.messages]) if begin else done)
                most_bytes -= done.size
            rest += [begin + at for at in misfits]
            dropped += left_out
        self.written += len(payloads) - len(rest)
        self._pause = 1 if 2 * len(rest) <= len(payloads) else min(2 * self._pause, _MOST_PAUSE)
        self._until = self._pause
        return joined(parts) if parts else None, rest, dropped

    def _part(self, payloads: Sequence[bytes], part: Part, most_bytes: int) -> tuple[Written | None, list[int], int]:
        everything = list(range(len(payloads)))
        columns, found = self._read(payloads)
        fitting = everything if found is None else found
        table = self._table(columns.paths) if fitting else None
        if table is None:
            return None, everything, 0
        longest = max(map(len, payloads))
        if longest * _GROWTH + table.chars > self._most_bytes:
            return None, everything, 0
        raws: dict[int, Sequence[Raw]] = {
            id(column): JoinedTexts(texts, columns.rows)
            for column, texts in zip(table.columns, columns.texts, strict=True) if column is not None}
        for _ in range(_TRIES):
            if not fitting:
                break
            is_whole = len(fitting) == len(payloads)
            now = part._replace(
                times=part.times if is_whole or part.times is None else [part.times[at] for at in fitting],
                headers=part.headers if is_whole or part.headers is None else [part.headers[at] for at in fitting],
                is_long=longest >= SAFE_CHARS, may_ask=part.may_ask and is_whole)
            try:
                made = table.code.of_columns(now, Taken(len(fitting), None, raws), most_bytes)
            except AllByRules:
                break
            except Misfit as misfit:
                keep = [at for at in range(len(fitting)) if at not in misfit.indices]
                fitting = [fitting[at] for at in keep]
                raws = {key: column.rows(keep) for key, column in raws.items() if isinstance(column, JoinedTexts)}
                continue
            good = set(fitting).difference([fitting[at] for at in made.misfits])
            rest = [] if len(good) == len(payloads) else [at for at in everything if at not in good]
            if not is_whole:
                made = made._replace(messages=[fitting[at] for at in made.messages])
            dropped = len(fitting) - len(made.misfits) - len(made.messages) if table.code.can_drop else 0
            return made, rest, dropped
        return None, everything, 0

    def _table(self, paths: tuple[tuple[str, ...], ...]) -> _Table | None:
        if paths not in self._tables:
            if len(self._tables) >= _MOST_CODES:
                self._tables.clear()
            self._tables[paths] = self._made(paths)
        return self._tables[paths]

    def _made(self, paths: tuple[tuple[str, ...], ...]) -> _Table | None:
        """None where not all columns have a place."""
        rules = self._rules
        example: dict[str, Any] = {}
        for path in paths:
            within = example
            for key in path[:-1]:
                within = within.setdefault(key, {})
                if not isinstance(within, dict):
                    return None
            if path[-1] in within:
                return None
            within[path[-1]] = 0
        schema = Schema(rules, frozenset([path for rule in rules.config.rules for path in paths_of(rule.when)]),
                        keeps_texts=True)
        text = msgspec.json.encode(example)
        schema.learn(text)
        reader = None if schema.is_full or schema.asks_for_more() else schema.reader()
        if reader is None or any([len(path) > self._limits.depth for path in paths]):
            return None
        try:
            reader.decode(text)
        except msgspec.DecodeError:  # a key has no place
            return None
        by_path = {column.path: column for column in reader.outer.all_columns()}
        if not by_path.keys() <= {".".join(path) for path in paths}:  # an object that stays one
            return None
        chars = sum([sum(map(len, path)) * _GROWTH + 4 * len(path) for path in paths])
        return _Table(Code(rules, reader), [by_path.get(".".join(path)) for path in paths], chars)
