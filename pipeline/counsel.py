"""What the coordinator knows for all encoders: the types of fields, and which tags have too many values.

Types are written down in the runtime folder, so that a coordinator that takes over knows what was decided.
"""

import logging
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from pipeline import wire
from pipeline.cardinality import Cardinality
from pipeline.schema import Config
from pipeline.types import FieldKind, TypeBook, declared_types

_decisions = msgspec.json.Decoder(FieldKind)


class Counsel:
    """Answers the encoders' questions. One per coordinator."""

    def __init__(self, config: Config, folder: str, logger: logging.Logger) -> None:
        self._config = config
        self._logger = logger
        self._types = TypeBook(declared_types(config))
        self._cardinality = Cardinality(config)
        #: One run of the pipeline: types of an earlier one may be those of points that are deleted by now.
        self._journal = Path(folder) / f"types-{os.getppid()}.ndjson"
        if self._journal.exists():
            # The last line is cut short where the coordinator was killed as it wrote: nobody has been told of it.
            whole = self._journal.read_bytes().rpartition(b"\n")[0]
            self._journal.write_bytes(whole + b"\n" if whole else b"")
            self._types.restore([_decisions.decode(line) for line in whole.split(b"\n") if line])

    def answer(self, message: "wire.AskTypes | wire.Sketches") -> list[Struct]:
        """The messages for the encoder that asks, or for all of them (`OverLimit`)."""
        if isinstance(message, wire.AskTypes):
            decided, new = self._types.decide(message.space, message.measurement, message.kinds)
            if new:
                with self._journal.open("ab") as file:
                    file.write(b"".join([msgspec.json.encode(decision) + b"\n" for decision in new]))
            return [wire.Types(message.space, message.measurement, decided)]
        sink = self._config.all_sinks()[message.sink]
        new_tags = self._cardinality.merge(message.sink, message.registers)
        for tag, count in new_tags:
            then = {"warn": "they are written all the same", "to_field": f"it is written as the field {tag}_value",
                    "reject": "messages that have it are rejected"}[sink.mapping.on_high_cardinality]
            self._logger.warning("sink %s: tag %s has about %d distinct values, more than max_tag_values = %d; %s",
                                 sink.name, tag, count, sink.mapping.max_tag_values, then)
        return self.welcome() if new_tags else []

    def welcome(self) -> list[Struct]:
        """What an encoder has to know from the start."""
        return [wire.OverLimit(sink, sorted(tags)) for sink, tags in self._cardinality.over.items()
                if self._config.all_sinks()[sink].mapping.on_high_cardinality != "warn"]
