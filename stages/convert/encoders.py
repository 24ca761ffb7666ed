"""Encodes the tables of one source: fields are converted to `types`, and points go through `steps`. Pure."""

from typing import Protocol

from pipeline.config.source_schema import SourceConfig
from pipeline.points.table import Column, Table
from stages.convert.payloads import Dedupe, PageMessages, encoder_of
from stages.convert.steps import PointSteps, StepsEncoder
from stages.convert.types import FieldTypes, TableConversion

#: Encoders cached; there is one for each measurement and set of columns.
MAX_ENCODERS = 1_000


class TableEncoder(Protocol):
    """Encodes the tables of one measurement with one set of columns."""

    def encode(self, table: Table, dedupe: Dedupe | None, out: PageMessages) -> None:
        """Adds the messages of a table's rows to `out`."""


class _Converting:
    """Converts fields before they are encoded."""

    def __init__(self, conversion: TableConversion, encoder: TableEncoder) -> None:
        self._conversion = conversion
        self._encoder = encoder

    def encode(self, table: Table, dedupe: Dedupe | None, out: PageMessages) -> None:
        """Adds the messages of a table's rows to `out`."""
        self._encoder.encode(self._conversion.apply(table), dedupe, out)


class SourceEncoder:
    """Encodes all measurements of a source."""

    def __init__(self, config: SourceConfig) -> None:
        """Raises BadStep."""
        self._config = config
        self._types = FieldTypes(config.types)
        self._steps = PointSteps(config) if config.steps else None
        self._encoders: dict[tuple[str, tuple[Column, ...]], TableEncoder] = {}

    def encode(self, kept: str, table: Table, dedupe: Dedupe | None, out: PageMessages) -> None:
        """Adds the messages of a table's rows to `out`. The source keeps the measurement under the name `kept`."""
        encoder = self._encoders.get((kept, table.columns))
        if encoder is None:
            if len(self._encoders) >= MAX_ENCODERS:
                self._encoders.clear()
            encoder = self._encoders[kept, table.columns] = self._new(kept, table.columns)
        encoder.encode(table, dedupe, out)

    def _new(self, kept: str, columns: tuple[Column, ...]) -> TableEncoder:
        if self._steps is not None:
            return StepsEncoder(self._config, kept, columns, self._steps, self._types)
        conversion = TableConversion(columns, self._types)
        if conversion.columns == columns:
            return encoder_of(self._config, kept, columns)
        return _Converting(conversion, encoder_of(self._config, kept, conversion.columns))
