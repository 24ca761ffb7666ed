"""Finds the states that are stored for a source: the one it runs with, and those of backfills beside it."""

import functools
import logging
import re
import time
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from pipeline.config.schema import Config
from pipeline.config.source_schema import SourceConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyForbidden
from pipeline.iggy.retry import retry_on_disconnect
from pipeline.source_coordinator.state import SourceState, StateError, head_of, state_name
from pipeline.source_coordinator.state_parts import Writer
from pipeline.source_coordinator.state_store import StateStore, state_holder, store_of

#: The end of a backfill's name, as `state_name` makes it.
_BACKFILL = re.compile(r"\.until-[0-9]{5,8}T[0-9]{6}-[0-9a-f]{8}")


class StoredState(Struct, frozen=True):
    """One state of a source."""

    #: The source as it runs with this state: with `from` and `to` of the backfill, if it is one.
    config: SourceConfig
    #: The path of the file, or "stream/topic".
    name: str
    store: StateStore
    #: None: there is none yet, or it cannot be used.
    state: SourceState | None
    #: When it was written, ISO 8601.
    written: str = ""
    #: The process that runs with it, "" if none of this machine (and, with a topic, of this user) does.
    holder: str = ""
    #: Why it cannot be used; "" if it can, or is missing.
    problem: str = ""

    @property
    def label(self) -> str:
        """What the state is of, for people."""
        backfill = f", backfill from {self.config.from_} to {self.config.to}" if self.config.to else ""
        return f"source {self.config.name}{backfill}"


async def stored_states(config: Config, source: SourceConfig, writer: Writer,
                        logger: logging.Logger) -> list[StoredState]:
    """The state that the source runs with, also if it does not exist yet; then all others. Raises IggyError, and
    StateError if there is a folder that cannot be read."""
    base = source.state_topic or source.state_file
    own = state_name(source, base)
    names = await _topics_beside(config, base) if source.state_topic else _files_beside(Path(base))
    return [await retry_on_disconnect(functools.partial(_stored, config, source, name, own, writer, logger))
            for name in [own, *sorted(name for name in names if name != own)]]


def _files_beside(base: Path) -> list[str]:
    """The file itself, and those of backfills."""
    try:
        return [str(path) for path in base.parent.iterdir() if path.name.startswith(base.name)
                and (path.name == base.name or _BACKFILL.fullmatch(path.name[len(base.name):]))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateError(f"the folder {base.parent} cannot be read: {error.strerror}") from None


async def _topics_beside(config: Config, base: str) -> list[str]:
    """The topic itself, and those of backfills, as "stream/topic"; none where the user may not list them."""
    stream, _, topic = base.partition("/")
    iggy = IggyConnection(config.iggy)

    async def found() -> list[str]:
        await iggy.ensure_connected()
        return list(await iggy.topics_of(stream)) if await iggy.has_stream(stream) else []

    try:
        names = await retry_on_disconnect(found)
    except IggyForbidden:
        return []
    return [f"{stream}/{name}" for name in names
            if name.startswith(topic) and (name == topic or _BACKFILL.fullmatch(name[len(topic):]))]


async def _stored(config: Config, source: SourceConfig, name: str, own: str, writer: Writer,
                  logger: logging.Logger) -> StoredState:
    """One state. Raises IggyError."""
    of = source
    try:
        content = await store_of(config, source, writer, logger, name).read()
        head = head_of(content) if content is not None else None
        if name != own:
            # Only a backfill's state says where it ends.
            of = replace(source, from_=head.identity.from_ or source.from_, to=head.identity.to) if head else source
        store = store_of(config, of, writer, logger, name)
        state = await store.load(time.time_ns()) if content is not None else None
        if state is not None and state_name(of, source.state_topic or source.state_file) != name:
            raise StateError(f"{store.where} is {_what(of)}, whose state has another name: it was renamed or copied, "
                             "and no pipeline uses it")
    except StateError as error:
        return StoredState(of, name, store_of(config, of, writer, logger, name), None, problem=str(error))
    return StoredState(of, name, store, state, head.written if head else "", state_holder(config, of))


def _what(config: SourceConfig) -> str:
    return f"of the backfill from {config.from_} to {config.to}" if config.to else f"of the source {config.name}"
