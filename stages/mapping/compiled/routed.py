"""Templates of messages whose measurement or bucket depends on rules, a bucket template, or headers."""

from collections.abc import Sequence
from itertools import compress
from typing import Any, Final

import msgspec

from pipeline.points.field_type import FieldType
from stages.mapping.batch import texts_of
from stages.mapping.compiled.guarded import check_types
from stages.mapping.compiled.series import RuleChooser, SeriesColumns
from stages.mapping.compiled.tables import Column
from stages.mapping.compiled.uniform_batch import BatchTemplate, Cut
from stages.mapping.compiled.written import Written
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.type_guard import SlowPathNeeded
from stages.mapping.reject import Reject

_VALUES: Final = msgspec.json.Decoder(list[Any])
#: The series of several templates of one topic, by partition and by path and key of the values that they come from.
SharedSeries = dict[tuple[int, tuple[tuple[str, str], ...]], SeriesColumns]


def is_routed(rules: RecordMapper) -> bool:
    """Whether the messages of a mapping need such templates."""
    config = rules.config
    return bool(config.rules or config.bucket_template or config.header_tags)


class RoutedTemplate:
    """The quick way of one template of such messages."""

    def __init__(self, rules: RecordMapper, template: BatchTemplate, columns: Sequence[Column],
                 kinds: dict[str, FieldType], series: SharedSeries) -> None:
        """`columns` are those of measurement, tags and bucket, and those that conditions ask for; `kinds` are the types
        of the fields.
        """
        self.template = template
        self.source = template.source
        self._rules = rules
        self._kinds = kinds
        self._heads = [column for column in columns if column.in_head]
        self._operands = [column for column in columns if column.is_operand]
        self._chooser = RuleChooser(rules, self._operands) if rules.config.rules else None
        self._shared = series
        self._key = tuple([(column.path, column.key) for column in self._heads])

    def written(self, array: Any, count: int, times: Sequence[int] | None, headers: Sequence[tuple[str, ...]] | None,
                partition: int, may_ask: bool) -> Written | None:
        """The points of the `count` messages in an array's bytes, which are told by their numbers in it; None where
        they must go another way. See `BatchTemplate.lines`.
        """
        try:
            cut = self.template.cut(array, count)
            if cut is None or cut.has_escapes:
                return None
            return self._points(cut, count, times, headers, partition, may_ask)
        except (Reject, SlowPathNeeded, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _points(self, cut: Cut, count: int, times: Sequence[int] | None, headers: Sequence[tuple[str, ...]] | None,
                partition: int, may_ask: bool) -> Written | None:
        messages, dropped = list(range(count)), 0
        choices = None
        if self._chooser is not None:
            values: list[list[Any]] = [_VALUES.decode(f"[{','.join(cut.alone(column.path))}]")
                                       for column in self._operands]
            choices = self._chooser.chosen(values, partition, headers, count)
            drops = self._chooser.drops
            if drops and not drops.isdisjoint(choices):
                keep = [choice not in drops for choice in choices]
                cut, messages = cut.only(keep), list(compress(messages, keep))
                choices = list(compress(choices, keep))
                times, headers = times and list(compress(times, keep)), headers and list(compress(headers, keep))
                dropped = count - len(messages)
                if not messages:
                    return Written([], [], [], [], [], 0, dropped=dropped)
        bad: set[int] = set()
        series = self._series(partition).series([cut.alone(column.path) for column in self._heads], headers, choices,
                                                len(messages), bad)
        if bad:
            return None
        if self._rules.guard is not None:
            for bucket, measurement in {(one.bucket, one.measurement) for one in set(series)}:
                check_types(self._rules.guard_of(bucket), measurement, self._kinds, may_ask)
        heads, at = [one.head for one in series], texts_of(self.template.times(cut) or times or ())
        lines = self.template.lines_of(cut, heads, at)
        buckets = [one.bucket for one in series] if self._rules.router is not None else None
        return Written(messages, heads, at, lines, buckets, sum(map(len, lines)), dropped=dropped)

    def _series(self, partition: int) -> SeriesColumns:
        key = partition, self._key
        if key not in self._shared:
            self._shared[key] = SeriesColumns(self._rules, self._heads, partition)
        return self._shared[key]
