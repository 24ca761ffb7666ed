"""The registry shared by all encoders: the types of fields, and the tags with too many values.

Decisions on types are written to the runtime folder for the next coordinator of this run. They are valid for one run
only: points of an earlier one may have been deleted since.
"""

import contextlib
import heapq
import logging
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from pipeline.config.schema import Config
from pipeline.fields.cardinality import Cardinality
from pipeline.fields.types import FieldTypeDecision, FieldTypeRegistry, declared_types
from pipeline.wire import sink as wire

#: Tags of each sink whose numbers of values the Status has.
SHOWN_TAGS = 20
_decisions = msgspec.json.Decoder(FieldTypeDecision)


class Journal:
    """The decisions of one run, a line each, in `types-RUN.ndjson`.

    Files of other runs are removed: the folder is locked, so that no other run uses them.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.path = folder / f"types-{run}.ndjson"
        #: Decisions that could not be written to the file yet.
        self._unwritten: list[FieldTypeDecision] = []
        for other in folder.glob("types-*.ndjson"):
            if other != self.path:
                with contextlib.suppress(OSError):
                    other.unlink()

    def read(self) -> list[FieldTypeDecision]:
        """The decisions of earlier coordinators of this run. An incomplete last line, left by a kill or a full disk, is
        removed: it was sent to no encoder. Raises OSError."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        whole = content.rpartition(b"\n")[0]
        if len(whole) + bool(whole) < len(content):
            os.truncate(self.path, len(whole) + bool(whole))
        decisions = []
        for line in whole.splitlines():
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                decisions.append(_decisions.decode(line))
        return decisions

    def write(self, decisions: list[FieldTypeDecision]) -> None:
        """Appends decisions, and those that could not be written before. Raises OSError; then the file is unchanged,
        and all of them remain to be written."""
        self._unwritten += decisions
        if not self._unwritten:
            return
        with self.path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                content = memoryview(b"".join([msgspec.json.encode(one) + b"\n" for one in self._unwritten]))
                while content:
                    content = content[file.write(content) or 0:]
            except OSError:
                file.truncate(size)
                raise
        self._unwritten.clear()


class FieldRegistry:
    """Answers the requests of encoders. One per coordinator."""

    def __init__(self, config: Config, folder: str, run: str, logger: logging.Logger) -> None:
        """Raises OSError when the earlier decisions of this run cannot be read."""
        self._config = config
        self._logger = logger
        self._types = FieldTypeRegistry(declared_types(config))
        self._cardinality = Cardinality(config)
        self._journal = Journal(Path(folder), run)
        self._types.restore(self._journal.read())
        self._logged_full = False

    def reconfigure(self, config: Config) -> None:
        """Uses the declared types and limits of a changed mapping. Fields keep the types that they have."""
        self._config = config
        self._types.declare(declared_types(config))
        self._cardinality.limit(config)

    def answer(self, message: wire.FieldTypesRequest | wire.TagCardinalities) -> list[Struct]:
        """The messages for the encoder that has sent `message`; `OverLimit` is for all encoders.

        Raises OSError when a decision cannot be written: the request must not be answered then, and is repeated.
        """
        if isinstance(message, wire.FieldTypesRequest):
            decided, new = self._types.decide(message.namespace, message.measurement, message.types)
            if self._types.full and not self._logged_full:
                self._logged_full = True
                self._logger.warning("the field registry is full; each message decides the types of further fields. "
                                     "First: %s of %s. Use tags, or fewer field names", next(iter(message.types), ""),
                                     message.measurement)
            self._journal.write(new)
            return [wire.FieldTypes(message.namespace, message.measurement, decided)]
        sink = self._config.all_sinks()[message.sink]
        new_tags = self._cardinality.merge(message.sink, message.registers)
        for tag, count in new_tags:
            consequence = {"warn": "they are written", "to_field": f"it is written as the field {tag}_value",
                           "reject": "messages that have it are rejected"}[sink.mapping.on_high_cardinality]
            self._logger.warning("sink %s: tag %s has about %d distinct values, more than max_tag_values = %d; %s",
                                 sink.name, tag, count, sink.mapping.max_tag_values, consequence)
        return self.initial_messages() if new_tags else []

    def write(self) -> None:
        """Writes the decisions that could not be written before. Raises OSError."""
        self._journal.write([])

    def initial_messages(self) -> list[Struct]:
        """The messages for a new encoder."""
        return [wire.OverLimit(sink, sorted(tags)) for sink, tags in self._cardinality.over.items()
                if self._config.all_sinks()[sink].mapping.on_high_cardinality != "warn"]

    def tags(self) -> list[wire.TagStatus]:
        """The tags with most values; of each sink the first few."""
        sinks = self._config.all_sinks()
        return [wire.TagStatus(sinks[sink].name, tag, values)
                for sink, estimates in sorted(self._cardinality.estimates.items())
                for tag, values in heapq.nlargest(SHOWN_TAGS, estimates.items(), key=lambda item: item[1])]
