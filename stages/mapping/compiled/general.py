"""The general way: messages of any shape, read by Structs that were learned, and written column by column.

A batch is read by one call of the decoder for each message; then each field of all messages is made at once. What does
not fit, for whatever reason, is given back by its index: it goes by the exact rules, which say what it is, and from
what they wrote the schema learns. Nothing is decided here that the rules would decide otherwise.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec

from stages.mapping.compiled.code import AllByRules, Code, Misfit, Part
from stages.mapping.compiled.columns import SAFE_CHARS
from stages.mapping.compiled.rows import Unfit
from stages.mapping.compiled.schema import Reader, Schema
from stages.mapping.compiled.supported import can_go_generally
from stages.mapping.compiled.tables import Column
from stages.mapping.compiled.written import Written, joined
from stages.mapping.cpu_limit import CpuLimit
from stages.mapping.limits import Limits
from stages.mapping.records.conditions import paths_of
from stages.mapping.records.mapper import RecordMapper

#: Messages of a batch are taken in parts of so many bytes: their columns stay in the processor's caches.
_PART_BYTES: Final = 100_000
#: Times that a part is tried without the messages that were found not to fit, and with other code, before all of it
#: goes by the rules.
_TRIES: Final = 3
_CODES: Final = 4
#: A key costs about 3 us whenever Structs are made. So many are made of at first; then so many more for each message
#: that comes, and at most so many at once: a hundredth of what the messages themselves cost.
_FIRST_CREDIT: Final = 4_000.0
_CREDIT_PER_MESSAGE: Final = 0.1
#: Messages after which a schema forgets all, to learn what there is now: where it has no room for a new key, and where
#: one of its fields was in none of them.
FORGET_AFTER: Final = 200_000
#: What may hide a colon in a string: one that is counted shows a key that is there twice.
_HIDDEN_COLON: Final = re.compile(rb"\\u003[aA]")
_encoder: Final = msgspec.json.Encoder()


class General:
    """The general way of one topic. Not thread-safe: it learns as it goes."""

    def __init__(self, rules: RecordMapper, cpu: CpuLimit) -> None:
        self._rules = rules
        self._cpu = cpu
        self._limits: Limits = rules.flattener.limits
        config = rules.config
        #: Whether messages can go this way at all under the mapping.
        self.is_possible = can_go_generally(rules)
        operands = frozenset(path for rule in config.rules for path in paths_of(rule.when))
        self.schema = Schema(rules, operands)
        self._drops = frozenset([number for number, rule in enumerate(config.rules) if rule.then == "drop"])
        self._code: Code | None = None
        self._is_stale = False
        self._credit = _FIRST_CREDIT
        self._since_forgotten = self._since_checked = 0
        #: How often Structs were made, and of how many keys in all.
        self.compiled = self.compiled_keys = 0
        #: How often a full schema was forgotten.
        self.forgotten = 0
        #: Messages that were written this way, or dropped.
        self.written = 0

    @property
    def is_ready(self) -> bool:
        """Whether something was learned that messages can be read by."""
        return self._code is not None

    def description(self) -> str:
        """What was learned, for people: the keys that are read, what becomes of each, and the code of the rules."""
        return "" if self._code is None else self._code.description()

    def forget_series(self) -> None:
        """Forgets measurements and tags: they are to be made otherwise from now on."""
        if self._code is not None:
            self._code.series.clear()

    def learn(self, payloads: Sequence[bytes]) -> bool:
        """Learns from messages that were given back, and came out right by the rules. Whether others may fit now."""
        for payload in payloads:
            self._is_stale |= self.schema.learn(payload)
        if self.schema.is_full and payloads and self._since_forgotten >= FORGET_AFTER:
            self._forget()
            self._is_stale = any([self.schema.learn(payload) for payload in payloads])
        if not self._is_stale or self._credit < self.schema.keys:
            return False
        self._compile()
        return self.is_ready

    def _forget(self) -> None:
        self._since_forgotten = self._since_checked = 0
        self.forgotten += 1
        self.schema.forget()
        self._is_stale = False
        self._code = None

    def _forget_unused(self) -> None:
        """Looks now and then whether there are fields that do not come any more: each costs its part of a batch."""
        if self._code is not None and self._since_checked >= FORGET_AFTER:
            self._since_checked = 0
            if self._code.has_unused:
                self._forget()
            else:
                self._code.forget_use()

    def _compile(self) -> None:
        self._is_stale = False
        self._credit -= self.schema.keys
        self.compiled += 1
        self.compiled_keys += self.schema.keys
        reader = None if self.schema.asks_for_more() else self.schema.reader()
        self._code = Code(self._rules, reader) if reader is not None else None

    def _apart(self, code: Code, columns: Sequence[Column]) -> Code:
        """Other code, by which fields have columns of their own; the same where that would cost too much."""
        self.schema.set_apart(columns)
        self._is_stale = True
        if self._credit >= self.schema.keys:
            self._compile()
        return self._code or code

    def encode(self, payloads: Sequence[bytes], indices: Sequence[int], times: Sequence[int] | None, partition: int,
               headers: Sequence[tuple[str, ...]] | None, most_bytes: int) -> tuple[Written | None, list[int], int]:
        """The points of those of the payloads at `indices` that fit; the indices of the others; how many were dropped
        on purpose. Times and headers are of all payloads.

        More than `most_bytes` of lines are not made. All messages before those at `indices` must be written.
        """
        self._credit = min(_FIRST_CREDIT, self._credit + _CREDIT_PER_MESSAGE * len(payloads))
        self._since_forgotten += len(payloads)
        self._since_checked += len(payloads)
        self._forget_unused()
        code = self._code
        if code is None:
            return None, list(indices), 0
        parts: list[Written] = []
        misfits: list[int] = []
        dropped = 0
        for some in _parts(payloads, indices):
            self._cpu.begin()
            for _ in range(_CODES):
                try:
                    done, rest, left_out = self._part(code, payloads, some, times, partition, headers, most_bytes,
                                                      not misfits)
                    break
                except Unfit as unfit:
                    done, rest, left_out = None, list(some), 0
                    code = self._apart(code, unfit.columns)
            if done is not None:
                parts.append(done)
                most_bytes -= done.size
            misfits += rest
            dropped += left_out
        self.written += len(indices) - len(misfits)
        return joined(parts) if parts else None, misfits, dropped

    def _part(self, code: Code, payloads: Sequence[bytes], indices: Sequence[int], times: Sequence[int] | None,
              partition: int, headers: Sequence[tuple[str, ...]] | None, most_bytes: int,
              may_ask: bool) -> tuple[Written | None, list[int], int]:
        """See `encode`. Raises Unfit."""
        fitting, structs, longest = _readable(code.reader, payloads, indices, self._limits)
        for _ in range(_TRIES):
            if not fitting:
                break
            part = Part(structs, times and [times[index] for index in fitting],
                        headers and [headers[index] for index in fitting], partition,
                        longest >= SAFE_CHARS, may_ask and len(fitting) == len(indices))
            try:
                made = code.written(part, most_bytes)
            except AllByRules:
                break
            except Misfit as misfit:
                fitting = [index for at, index in enumerate(fitting) if at not in misfit.indices]
                structs = [code.reader.decode(payloads[index]) for index in fitting]
                continue
            misfits: list[int] = []
            if len(fitting) < len(indices) or made.misfits:
                good = set(fitting).difference([fitting[at] for at in made.misfits])
                misfits = [index for index in indices if index not in good]
            if fitting[-1] != len(fitting) - 1:
                made = made._replace(messages=[fitting[at] for at in made.messages])
            dropped = len(fitting) - len(made.misfits) - len(set(made.messages)) if code.can_drop else 0
            return made, misfits, dropped
        return None, list(indices), 0


def _parts(payloads: Sequence[bytes], indices: Sequence[int]) -> Iterator[Sequence[int]]:
    """The indices in parts of about `_PART_BYTES` of their payloads."""
    some = payloads if len(indices) == len(payloads) else [payloads[index] for index in indices]
    ends = list(accumulate(map(len, some)))
    begin = 0
    while begin < len(ends):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, bisect_right(ends, before + _PART_BYTES, begin))
        yield indices[begin:end]
        begin = end


def _readable(reader: Reader, payloads: Sequence[bytes], indices: Sequence[int],
              limits: Limits) -> tuple[list[int], list[Any], int]:
    """Indices of the messages that the Structs read without losing anything, those, and the longest one's bytes."""
    some = payloads if len(indices) == len(payloads) else [payloads[index] for index in indices]
    structs: list[Any] = []
    bad: set[int] = set()
    reading = map(reader.decode, some)
    while True:
        try:
            structs.extend(reading)  # what was read before an error is kept, and reading goes on after it
            break
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            bad.add(len(structs) + len(bad))
    fitting = list(indices)
    if bad:
        fitting = [index for at, index in enumerate(indices) if at not in bad]
        some = [payload for at, payload in enumerate(some) if at not in bad]
    whole = b"\n".join(some)
    longest = max(map(len, some), default=0)
    encoded = _encoder.encode(structs)
    # Written again, no value is longer, and Structs that lost nothing are as long as what they were read from, which
    # has no more between its values than is needed: brackets, and commas between.
    is_whole = len(encoded) == len(whole) + 2
    # Of a key that is there twice the Structs hold one value: the other one's colon is missing.
    if ((is_whole or whole.count(b":") == encoded.count(b":") and not (
            b"\\" in whole and _HIDDEN_COLON.search(whole))) and longest < 2 * limits.values and _is_text(whole)):
        return fitting, structs, longest
    kept = [at for at, payload in enumerate(some)
            if payload.count(b":") == _encoder.encode(structs[at]).count(b":") and len(payload) < 2 * limits.values
            and not _HIDDEN_COLON.search(payload) and _is_text(payload)]
    return [fitting[at] for at in kept], [structs[at] for at in kept], longest


def _is_text(payload: bytes) -> bool:
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
