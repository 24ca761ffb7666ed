"""The encoder's side of the coordinator's registries: field types, and tags with too many values."""

import logging
import time
from collections.abc import Mapping
from typing import Final

from pipeline.errors import PipelineError
from pipeline.fields.cardinality import TagCardinality
from pipeline.points.field_type import FieldType
from pipeline.sockets.control_link import ControlLink
from pipeline.wire import sink as wire
from stages.mapping.encoder import Encoder

#: Longest wait for an answer before the request is sent again, since a new coordinator may not have received it.
ANSWER_MILLISECONDS: Final = 1_000
#: Seconds without an answer after which the wait is logged.
SILENCE_SECONDS: Final = 10.0
#: Seconds between two reports of the estimates that have changed, and of all of them: a new coordinator has none.
SKETCH_SECONDS: Final = 5.0
ALL_SKETCHES_SECONDS: Final = 60.0


class RegistryClient:
    """Requests field types over the process's control link, and passes on which tags have too many values."""

    def __init__(self, link: ControlLink, logger: logging.Logger) -> None:
        self._link = link
        self._logger = logger
        #: Encoders by sink.
        self._encoders: dict[int, list[Encoder]] = {}
        self._sketches: dict[int, TagCardinality] = {}
        #: Messages received while an encoder was working; they are applied between two batches.
        self._over: list[wire.OverLimit] = []
        #: The last answer on whether this remote encoder is admitted.
        self._admitted = wire.Admit("", 0, 0)
        self._sketched_at = self._all_sketched_at = time.monotonic()

    def add(self, sink: int, encoder: Encoder) -> None:
        """Registers an encoder: counts the values of its tags, if its mapping has a limit, and applies the limit."""
        self._encoders.setdefault(sink, []).append(encoder)
        if encoder.rules.config.max_tag_values:
            encoder.rules.heads.seen = self._sketches.setdefault(sink, TagCardinality()).add

    def forget_encoders(self) -> None:
        """Other encoders take the place of all that were added. What was counted of tags stays."""
        self._encoders.clear()

    def ask_types(self, namespace: str, measurement: str, types: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        """The types that the fields have. Waits for the coordinator, without which nothing can be settled anyway."""
        began = time.monotonic()
        logged = False
        while True:
            self._link.beat()
            self._link.send(wire.FieldTypesRequest(namespace, measurement, dict(types)))
            until = time.monotonic() + ANSWER_MILLISECONDS / 1000
            while (left := until - time.monotonic()) > 0:
                message = self._link.receive(max(1, round(left * 1000)))
                if isinstance(message, wire.FieldTypes) \
                        and (message.namespace, message.measurement) == (namespace, measurement) \
                        and message.types.keys() >= types.keys():
                    return message.types
                self._take(message)
            if not logged and time.monotonic() - began > SILENCE_SECONDS:
                logged = True
                self._logger.warning("waiting for the coordinator to return the field types of %s", measurement)

    def _take(self, message: wire.Control | None) -> None:
        if isinstance(message, wire.OverLimit):
            self._over.append(message)
        if isinstance(message, wire.Admit):
            self._admitted = message

    def listen(self) -> None:
        """Handles the coordinator's messages, and reports the estimates when they are due. Never waits.

        Raises PipelineError if the coordinator no longer admits this remote encoder.
        """
        while (message := self._link.receive(0)) is not None:
            self._take(message)
        check_admitted(self._admitted, self._link.name)
        while self._over:
            over = self._over.pop(0)
            for encoder in self._encoders.get(over.sink, []):
                encoder.over_limit(frozenset(over.tags))
        now = time.monotonic()
        if now - self._sketched_at < SKETCH_SECONDS:
            return
        everything = now - self._all_sketched_at >= ALL_SKETCHES_SECONDS
        self._sketched_at = now
        self._all_sketched_at = now if everything else self._all_sketched_at
        for sink, sketches in self._sketches.items():
            changed = sketches.changed()
            if registers := sketches.all() if everything else changed:
                self._link.send(wire.TagCardinalities(sink, registers))


def check_admitted(message: wire.Admit, name: str) -> None:
    """Raises PipelineError if the pipeline does not admit the remote encoder `name`."""
    if message.refused:
        raise PipelineError(f"the pipeline does not admit {name}: {message.refused}")
