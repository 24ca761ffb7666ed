"""The quickest way from messages to lines: a whole batch of one template is cut by a single split.

The batch comes as `pipeline.wire.payload_frame` joins it: one JSON array, a line a message. A decoder that only walks
over it proves it valid JSON; after that the pattern need not prove it again, and a string ends at the next quote: what
is escaped has been replaced before (`compiled.escapes`). Neighbouring tags are cut out as one text, and so are
neighbouring numbers, which one translation of all of them turns into fields. Whatever is unusual ends it: the batch
then goes the way of the general one, which writes the same lines.
"""

import re
import weakref
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any, Final, Literal, NamedTuple

import msgspec

from pipeline.wire import payload_frame
from stages.mapping.batch import Points, hashes_of, texts_of
from stages.mapping.budget import Budget, cost_of
from stages.mapping.compiled import escapes
from stages.mapping.records.type_guard import SlowPathNeeded
from stages.mapping.reject import Reject

#: Patterns of JSON values, and shorter ones that mean the same in valid JSON without backslashes. A number may be
#: shorter than the pattern allows: the others have no quick way.
_LOOSE: Final = {r'"[^"\\\x00-\x1f]*+"': '"[^"]*+"',
                 r"-?(?:0|[1-9][0-9]{0,17}+)(?:\.[0-9]{1,100}+)?+": "[--9]{1,25}+",
                 "(?:true|false)": "[tf][a-z]{3,4}+"}
#: Keys whose JSON text, without quotes and with = for the colon, is that of a field key.
_SIMPLE_KEY: Final = re.compile(r"[A-Za-z0-9_.-]+")
_LAST_NAME: Final = re.compile(r'"([A-Za-z0-9_.-]+)":\Z')
_TO_FIELDS: Final = str.maketrans({'"': None, ":": "="})


class Segment(NamedTuple):
    """One value of a template: what stands before it, and what becomes of it."""

    #: Text between the value before and this one.
    literal: str
    #: Pattern of the JSON value, without groups; of the time, one with a group of what `number` names.
    pattern: str
    #: "": the value is not used.
    role: Literal["", "head", "field", "time", "asked"] = ""
    #: The number that `time` calls the value by.
    number: int = 0
    #: Of a field: `key=`, escaped, and what follows the value ("i", "u").
    lead: str = ""
    suffix: str = ""
    #: What is captured stands in a string, without its quotes.
    is_inside: bool = False
    #: Path of a value that is asked for by itself.
    path: str = ""


class _Span:
    """Values that are cut out as one text: one value, or neighbours of one role."""

    def __init__(self, cut: Segment) -> None:
        self.cuts = [cut]
        #: What stands before the keys in the fields of the same object; None where they are no simple names.
        self.prefix = _prefix_of(cut)

    def takes(self, cut: Segment) -> bool:
        """Whether a value belongs to the same text."""
        last = self.cuts[-1]
        if cut.role != last.role or cut.path or last.path:
            return False
        if cut.role == "head":
            return True
        if _is_string(last) or _is_string(cut):
            return False
        return self.prefix is not None and not last.suffix and not cut.suffix and _prefix_of(cut) == self.prefix and (
            cut.literal == f',"{cut.lead[len(self.prefix):-1]}":')

    @property
    def is_string(self) -> bool:
        """Whether it is a string, which is a text of its own."""
        return _is_string(self.cuts[0])

    def pattern(self, loose: bool) -> str:
        """The pattern after the first value's literal; strict ones have a group for each value, loose ones for all."""
        out = ""
        for index, cut in enumerate(self.cuts):
            out += re.escape(cut.literal) if index else ""
            out += _LOOSE.get(cut.pattern, cut.pattern) if loose else f"({cut.pattern})"
        return f"({out})" if loose and self.cuts[0].role != "time" else out

    def source(self) -> str:
        """The f-string's part with these fields."""
        first = self.cuts[0]
        return f"{source_literal(first.lead)}{{v{first.number}}}{first.suffix}"


def _is_string(cut: Segment) -> bool:
    return cut.pattern.startswith('"')


def _prefix_of(cut: Segment) -> str | None:
    """What stands before the last name in a field's key; None where that is no simple name, as it stands in JSON."""
    match = _LAST_NAME.search(cut.literal)
    if cut.role != "field" or match is None or not cut.lead.endswith(f"{match[1]}="):
        return None
    prefix = cut.lead[:-len(match[1]) - 1]
    return prefix if _SIMPLE_KEY.fullmatch(prefix) or not prefix else None


class TextHeads(dict[Any, str]):
    """Measurement and tag set by the text, or texts, that their values stand in."""

    def __init__(self, patterns: Sequence[str], known: Any, budget: Budget) -> None:
        """`known` gives them by the values."""
        super().__init__()
        self._share = budget.share(self.clear)
        self._patterns = list(map(re.compile, patterns))
        self.known = known

    def __missing__(self, key: Any) -> str:
        """Raises Diverted where the messages must go another way, and Reject where one cannot have a head."""
        values: list[str] = []
        for pattern, text in zip(self._patterns, (key,) if isinstance(key, str) else key, strict=True):
            match = pattern.fullmatch(text)
            if match is None:
                raise SlowPathNeeded
            values += [value[1:-1] if value[0] == '"' else value for value in match.groups()]
        head = self.known[tuple(values) if len(values) != 1 else values[0]]
        if self._share.takes(cost_of(head, *((key,) if isinstance(key, str) else key))):
            self[key] = head
        return str(head)


#: Those of several templates, by partition, columns and patterns, as long as one of them has them.
SharedHeads = weakref.WeakValueDictionary[Any, TextHeads]


class HeadSources(NamedTuple):
    """Where a template has its heads from."""

    #: Gives the heads of a partition by their values; with an attribute `may_ask`.
    make: Callable[[int], Any]
    shared: SharedHeads
    #: The columns that the values come from.
    columns: tuple[Any, ...]
    #: Raises SlowPathNeeded where the type guard decides otherwise; whether it may be asked is told.
    check: Callable[[bool], None] = lambda may_ask: None


class Cut(NamedTuple):
    """A batch that was cut by its template."""

    #: The texts of each span, by its number from 1.
    columns: dict[int, Sequence[str]]
    #: Numbers of those that are asked for by themselves, by their paths.
    paths: dict[str, int]
    #: Whether there may be an escape, `escapes.marked`.
    has_escapes: bool

    def alone(self, path: str) -> Sequence[str]:
        """The JSON texts of a value that is asked for by itself."""
        return self.columns[self.paths[path]]

    def only(self, keep: Sequence[bool]) -> "Cut":
        """Some of the messages."""
        return self._replace(columns={number: list(compress(texts, keep)) for number, texts in self.columns.items()})


class BatchTemplate:
    """The quick way of one template."""

    def __init__(self, cuts: Sequence[Segment], tail: str, time: str,
                 read_times: Callable[[Sequence[str]], Sequence[str | int]], heads: HeadSources,
                 budget: Budget) -> None:
        """`time` is Python source of a message's time; "" where it is not in the message, "strings" where `read_times`
        reads those of all messages.
        """
        runs: list[_Span] = []
        pattern = ""
        open_run = False
        for cut in cuts:
            if open_run and runs[-1].takes(cut):
                runs[-1].cuts.append(cut)
                continue
            pattern += self._closed(runs, open_run) + re.escape(cut.literal)
            open_run = cut.role != ""
            if open_run:
                runs.append(_Span(cut))
            else:
                pattern += cut.pattern
        self._pattern = re.compile(pattern + self._closed(runs, open_run) + re.escape(tail))
        self._step = len(runs) + 1
        self._alone = {run.cuts[0].path: index for index, run in enumerate(runs, 1) if run.cuts[0].path}
        roles = [run.cuts[0].role for run in runs]
        self._head_runs = [(index, run) for index, run in enumerate(runs, 1) if run.cuts[0].role == "head"]
        self._time_at = roles.index("time") + 1 if "time" in roles else 0
        fields = [(index, run) for index, run in enumerate(runs, 1) if run.cuts[0].role == "field"]
        #: Of each text with fields: where it is, whether it has several, their prefix, and whether it is a string.
        self._fields_at = [(index, len(run.cuts) > 1, run.prefix or "", run.is_string) for index, run in fields]
        self._sources = heads
        self._patterns = tuple([run.pattern(loose=False) for _, run in self._head_runs])
        self._heads: dict[int, TextHeads] = {}
        self._budget = budget
        variables = "".join(f", v{run.cuts[0].number}" for _, run in fields)
        body = ",".join([run.source() for _, run in fields])
        moment = f"v{runs[self._time_at - 1].cuts[0].number}" if self._time_at else ""
        source = (f"def lines(heads, times{variables}):\n"
                  f"    return [f'{{head}} {body} {{time}}\\n'"
                  f" for head, time{variables} in zip(heads, times{variables})]\n")
        if moment and time not in (moment, "strings"):
            source += f"def times(texts):\n    return [{time} for {moment} in texts]\n"
        #: Python source of the functions that make the lines.
        self.source = source
        made: dict[str, Any] = {}
        exec(compile(source, "<uniform>", "exec"), made)  # nosec B102  # only escaped literals and our own names are in it
        self._make_lines: Callable[..., list[str]] = made["lines"]
        self._make_times: Callable[[Sequence[str]], Sequence[str | int]] | None = (
            read_times if time == "strings" else made.get("times"))

    @staticmethod
    def _closed(runs: list[_Span], is_open: bool) -> str:
        return runs[-1].pattern(loose=True) if is_open else ""

    def lines(self, array: Any, count: int, times: Sequence[int] | None, partition: int, distinct: bool,
              may_ask: bool = True) -> Points | None:
        """The lines of the `count` messages in an array's bytes, or None where they must go another way.

        `times` are the messages' own times, where their template has none; `distinct` asks that no two lines are the
        same point. With `may_ask` the type guard may be asked for what it does not know.
        """
        try:
            cut = self.cut(array, count)
            if cut is None:
                return None
            heads = self._head_column(cut, count, partition, may_ask)
            self._sources.check(may_ask)
            at = texts_of(self.times(cut) or times or ())
            hashes = hashes_of(heads, at)
            if distinct and len(hashes) < count:
                return None
            return Points(heads, at, self.lines_of(cut, heads, at), hashes)
        except (Reject, SlowPathNeeded, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def cut(self, array: Any, count: int) -> Cut | None:
        """The values of the messages; None where they do not all fit. Raises the errors of what is no JSON, and
        SlowPathNeeded.
        """
        text = str(array, "utf-8")
        _ARRAY.decode(array)
        has_escapes = "\\" in text
        if has_escapes:
            text = escapes.marked(text)
        parts = self._pattern.split(text)
        step = self._step
        if (len(parts) != step * count + 1 or parts[0] != _OPENING or parts[-1] != _CLOSING
                or parts[step:-1:step].count(_SEPARATOR) != count - 1):
            return None
        return Cut({number: parts[number::step] for number in range(1, step)}, self._alone, has_escapes)

    def lines_of(self, cut: Cut, heads: Sequence[str], times: Sequence[str]) -> list[str]:
        """The lines of messages."""
        fields = [cut.columns[index] for index, *_ in self._fields_at]
        fields = [_opened(texts, prefix) if several
                  else escapes.in_lines(texts) if is_string and cut.has_escapes else texts
                  for texts, (_, several, prefix, is_string) in zip(fields, self._fields_at, strict=True)]
        return self._make_lines(heads, times, *fields)

    def times(self, cut: Cut) -> Sequence[str | int]:
        """The times of messages; none where their template has none."""
        if not self._time_at:
            return ()
        texts = cut.columns[self._time_at]
        return self._make_times(texts) if self._make_times else texts

    def _head_column(self, cut: Cut, count: int, partition: int, may_ask: bool) -> list[str]:
        heads = self._heads.get(partition)
        if heads is None:
            key = partition, self._sources.columns, self._patterns
            heads = self._sources.shared.get(key)
            if heads is None:
                heads = TextHeads(self._patterns, self._sources.make(partition), self._budget)
                self._sources.shared[key] = heads
            self._heads[partition] = heads
        heads.known.may_ask = may_ask
        columns = [cut.columns[index] for index, _ in self._head_runs]
        if not columns:
            return [heads[()]] * count
        return list(map(heads.__getitem__, columns[0] if len(columns) == 1 else zip(*columns, strict=True)))


_OPENING, _SEPARATOR, _CLOSING = (
    part.decode() for part in (payload_frame.OPENING, payload_frame.SEPARATOR, payload_frame.CLOSING))
_ARRAY: Final = msgspec.json.Decoder(msgspec.Raw)


def _opened(texts: Sequence[str], prefix: str) -> list[str]:
    """`1,"b":2` of each message as `1,b=2`, keys with their prefix."""
    joined = "\n".join(texts)
    if not prefix:
        return joined.translate(_TO_FIELDS).split("\n")
    return joined.replace('":', "=").replace('"', prefix).split("\n")


def source_literal(text: str) -> str:
    """A text as part of the source of an f-string in single quotes."""
    escaped = text.encode("unicode_escape").decode().replace("'", "\\'")
    return escaped.replace("{", "{{").replace("}", "}}")
