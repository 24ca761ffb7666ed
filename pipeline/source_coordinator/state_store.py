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
from pipeline.locks import Locks, holder_of
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

    async def read(self) -> bytes | None:
        """The content of the stored state, not checked; None when there is none. Raises as `load` does."""

    async def load(self, now: int) -> SourceState:
        """The stored state; when there is none, a new one that begins at `now` (nanoseconds since 1970).

        Raises StateError for one that cannot be used, and IggyError while Iggy is unavailable.
        """

    async def save(self, state: SourceState) -> None:
        """Stores a state durably. Raises StateError or IggyError; then the previous one remains."""


def store_of(config: Config, source: SourceConfig, writer: Writer, logger: logging.Logger,
             name: str = "") -> StateStore:
    """The store of this source's state. `writer`: the process that will write to it; `name`: the file or topic of
    another of its states, as of a backfill."""
    if source.state_topic:
        return StateTopic(config.iggy, source, writer, logger, name)
    return StateFile(source, name)


def writer_of(what: str, process: int, run: str = "") -> Writer:
    """A writer for `store_of`: `what` it is, its pid, and its run, a new one where none is given."""
    return Writer(run or uuid.uuid4().hex, f"{what}, process {process} on {socket.gethostname()}")


def lock_states(locks: Locks, config: Config) -> None:
    """Locks the states against a second pipeline: files for all, topics among the pipelines of this host and user.

    Raises `locks.Locked`.
    """
    for source in config.sources:
        lock_state(locks, config, source)


def lock_state(locks: Locks, config: Config, source: SourceConfig) -> None:
    """Locks the state of one source as `lock_states` does. Raises `locks.Locked`."""
    if source.state_topic:
        topic = state_name(source, source.state_topic)
        locks.take_name(_lock_names(config, source), f"keeps a state in {topic} of {config.iggy.label()} already; "
                        "stop it, or give another state_topic")
    else:
        path = _lock_path(source)
        locks.take(path, f"uses {path.with_suffix('')} already; stop it, or give another state_file")


def state_holder(config: Config, source: SourceConfig) -> str:
    """Number of the process that has locked the state of a source; "" if none has."""
    if not source.state_topic:
        return holder_of(_lock_path(source))
    locks = Locks()
    try:
        return locks.holder_of_name(_lock_names(config, source))
    finally:
        locks.release()


def _lock_names(config: Config, source: SourceConfig) -> list[str]:
    topic = state_name(source, source.state_topic)
    return [f"{name}\0{topic}\0state" for server in config.iggy.servers() for name in names_of(server)]


def _lock_path(source: SourceConfig) -> Path:
    path = Path(state_name(source, source.state_file))
    return path.with_name(path.name + ".lock")


def this_command(name: str = "pipeline offsets") -> Writer:
    """The writer for a command."""
    return writer_of(name, os.getpid())
