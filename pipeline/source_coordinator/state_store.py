"""The stores of sources' states: a file, or an Iggy topic."""

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
from pipeline.source_coordinator.state import SourceState, state_name
from pipeline.source_coordinator.state_file import StateFile
from pipeline.source_coordinator.state_parts import Writer
from pipeline.source_coordinator.state_topic import StateTopic


class StateStore(Protocol):
    """Stores the state of one source. Only one process writes it at a time."""

    #: The file or topic, for logs and errors.
    where: str
    #: Risks of this store, known after `load`.
    warnings: tuple[str, ...]

    async def load(self, now: int) -> SourceState:
        """The stored state; when there is none, a new one that begins at `now` (nanoseconds since 1970).

        Raises StateError for one that cannot be used, and IggyError while Iggy is unavailable.
        """

    async def save(self, state: SourceState) -> None:
        """Stores a state durably. Raises StateError or IggyError; then the previous one remains."""


def store_of(config: Config, source: SourceConfig, writer: Writer, logger: logging.Logger) -> StateStore:
    """The store of this source's state. `writer`: the process that will write to it."""
    if source.state_topic:
        return StateTopic(config.iggy, source, writer, logger)
    return StateFile(source)


def writer_of(what: str, process: int, run: str = "") -> Writer:
    """A writer for `store_of`: `what` it is, its pid, and its run, a new one where none is given."""
    return Writer(run or uuid.uuid4().hex, f"{what}, process {process} on {socket.gethostname()}")


def lock_states(locks: Locks, config: Config) -> None:
    """Locks the states against a second pipeline: files for all, topics among the pipelines of this host and user.

    Raises `locks.Locked`.
    """
    servers = [name for server in config.iggy.servers() for name in names_of(server)]
    for source in config.sources:
        if source.state_topic:
            topic = state_name(source, source.state_topic)
            locks.take_name([f"{server}\0{topic}\0state" for server in servers],
                            f"keeps a state in {topic} of {config.iggy.label()} already; stop it, or give another "
                            "state_topic")
        else:
            path = Path(state_name(source, source.state_file))
            locks.take(path.with_name(path.name + ".lock"), f"uses {path} already; stop it, or give another state_file")


def this_command() -> Writer:
    """The writer for `pipeline offsets`."""
    return writer_of("pipeline offsets", os.getpid())
