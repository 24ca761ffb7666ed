"""What the coordinator knows for all encoders: the types of fields, and which tags have too many values.

Types are written down in the runtime folder, so that a coordinator that takes over knows what was decided. They are of
one run of the pipeline: those of an earlier one may be of points that are deleted by now.
"""

import contextlib
import logging
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from pipeline.config.schema import Config
from pipeline.fields.cardinality import Cardinality
from pipeline.fields.types import FieldTypeDecision, FieldTypeRegistry, declared_types
from pipeline.wire import sink as wire

_decisions = msgspec.json.Decoder(FieldTypeDecision)


class Journal:
    """The decisions of one run, a line each, in `types-RUN.ndjson`. Those of other runs are removed: the folder is
    locked, so that nobody needs them."""

    def __init__(self, folder: Path, run: str) -> None:
        self.path = folder / f"types-{run}.ndjson"
        #: Decisions that are not in the file yet.
        self._unwritten: list[FieldTypeDecision] = []
        for other in folder.glob("types-*.ndjson"):
            if other != self.path:
                with contextlib.suppress(OSError):
                    other.unlink()

    def read(self) -> list[FieldTypeDecision]:
        """What an earlier coordinator of this run has decided. A line that was cut short, where that coordinator was
        killed as it wrote, or the disk was full, is left out: nobody has been told of it. Raises OSError."""
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
        """Appends decisions, and those that could not be written before. Raises OSError; then all of them are still to
        be written, and the file ends as it did."""
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
    """Answers the encoders' questions. One per coordinator."""

    def __init__(self, config: Config, folder: str, run: str, logger: logging.Logger) -> None:
        """Raises OSError where the types that were decided before in this run can't be read."""
        self._config = config
        self._logger = logger
        self._types = FieldTypeRegistry(declared_types(config))
        self._cardinality = Cardinality(config)
        self._journal = Journal(Path(folder), run)
        self._types.restore(self._journal.read())
        self._told_full = False

    def answer(self, message: "wire.FieldTypesRequest | wire.TagCardinalities") -> list[Struct]:
        """The messages for the encoder that asks, or for all of them (`OverLimit`).

        Raises OSError where a decision can't be written down: then nothing may be answered, and the encoder asks again.
        """
        if isinstance(message, wire.FieldTypesRequest):
            decided, new = self._types.decide(message.namespace, message.measurement, message.types)
            if self._types.full and not self._told_full:
                self._told_full = True
                self._logger.warning("the types of so many fields are known that there is no room for more; further "
                                     "fields are written with the type that each message gives them. The first: %s of "
                                     "%s", next(iter(message.types), ""), message.measurement)
            self._journal.write(new)
            return [wire.FieldTypes(message.namespace, message.measurement, decided)]
        sink = self._config.all_sinks()[message.sink]
        new_tags = self._cardinality.merge(message.sink, message.registers)
        for tag, count in new_tags:
            then = {"warn": "they are written all the same", "to_field": f"it is written as the field {tag}_value",
                    "reject": "messages that have it are rejected"}[sink.mapping.on_high_cardinality]
            self._logger.warning("sink %s: tag %s has about %d distinct values, more than max_tag_values = %d; %s",
                                 sink.name, tag, count, sink.mapping.max_tag_values, then)
        return self.initial_messages() if new_tags else []

    def write(self) -> None:
        """Writes down what could not be written before. Raises OSError."""
        self._journal.write([])

    def initial_messages(self) -> list[Struct]:
        """What an encoder has to know from the start."""
        return [wire.OverLimit(sink, sorted(tags)) for sink, tags in self._cardinality.over.items()
                if self._config.all_sinks()[sink].mapping.on_high_cardinality != "warn"]
