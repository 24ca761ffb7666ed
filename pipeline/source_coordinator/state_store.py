"""Where the states of sources are kept: a file, or an Iggy topic."""

import logging
import os
import socket
import uuid
from pathlib import Path
from typing import Protocol

from pipeline.addresses import names_of
from pipeline.config.schema import Config
from pipeline.config.source_schema import SourceConfig
from pipeline.locks import Locks
from pipeline.source_coordinator.state import SourceState, place_of
from pipeline.source_coordinator.state_file import StateFile
from pipeline.source_coordinator.state_parts import Writer
from pipeline.source_coordinator.state_topic import StateTopic


class StateStore(Protocol):
    """Keeps the state of one source. One process writes it at a time."""

    #: For people, and for the words of errors.
    where: str
    #: What speaks against it, known after `load`.
    warnings: tuple[str, ...]

    async def load(self, now: int) -> SourceState:
        """The stored state; a new one, begun at `now` (nanoseconds since 1970), when there is none.

        Raises StateError for one that can't be used, and IggyError while Iggy can't be asked.
        """

    async def save(self, state: SourceState) -> None:
        """Stores a state for good. Raises StateError or IggyError; then the old one is still there."""


def store_of(config: Config, source: SourceConfig, writer: Writer, logger: logging.Logger) -> StateStore:
    """Where the state of this source is kept. `writer` is who writes there."""
    if source.state_topic:
        return StateTopic(config.iggy, source, writer, logger)
    return StateFile(source)


def writer_of(what: str, process: int, run: str = "") -> Writer:
    """A writer for `store_of`: `what` it is, its process, and its run; a new one where none is given."""
    return Writer(run or uuid.uuid4().hex, f"{what}, process {process} on {socket.gethostname()}")


def lock_states(locks: Locks, config: Config) -> None:
    """Keeps a second pipeline away from the same states: of files everywhere, of topics on this host and for this user.

    Raises `lock.Locked`.
    """
    servers = names_of(config.iggy.address)
    for source in config.sources:
        if source.state_topic:
            topic = place_of(source, source.state_topic)
            locks.take_name([f"{server}\0{topic}\0state" for server in servers],
                            f"keeps a state in {topic} of {config.iggy.address} already; stop it, or give another "
                            "state_topic")
        else:
            path = Path(place_of(source, source.state_file))
            locks.take(path.with_name(path.name + ".lock"), f"uses {path} already; stop it, or give another state_file")


def this_command() -> Writer:
    """The writer that `pipeline offsets` is."""
    return writer_of("pipeline offsets", os.getpid())
