"""A source's state in a file that is replaced atomically: a new file is written, synced and renamed; the folder is
synced.
"""

import asyncio
import os
from pathlib import Path

from pipeline.config.source_schema import SourceConfig
from pipeline.files import open_own, problem, replace_own
from pipeline.source_coordinator.state import (
    SourceState,
    StateError,
    decode_state,
    encode_state,
    identity_of,
    state_name,
)


class StateFile:
    """A `StateStore`: the state of one source in its `state_file`."""

    def __init__(self, config: SourceConfig, name: str = "") -> None:
        """`name`: the path of another state of this source; that of the configuration by default."""
        self._config = config
        self.path = Path(name or state_name(config, config.state_file))
        self.where = str(self.path)
        self.warnings: tuple[str, ...] = ()

    async def read(self) -> bytes | None:
        """The content of the file; None when there is none. Raises StateError."""
        return await asyncio.to_thread(self._read)

    async def load(self, now: int) -> SourceState:
        """The stored state; when there is no file, a new one that begins at `now`. Raises StateError."""
        return await asyncio.to_thread(self._load, now)

    async def save(self, state: SourceState) -> None:
        """Stores a state durably. Raises StateError; then the previous one remains."""
        await asyncio.to_thread(self._save, state)

    def _load(self, now: int) -> SourceState:
        content = self._read()
        if content is None:
            return SourceState(identity_of(self._config), now)
        return decode_state(content, self._config, self.where, "state_file", "move it away")

    def _read(self) -> bytes | None:
        try:
            descriptor = open_own(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"source {self._config.name}: {self.path} cannot be read: {problem(error, self.path)}"
                             ) from None
        with os.fdopen(descriptor, "rb") as handle:
            return handle.read()

    def _save(self, state: SourceState) -> None:
        content = encode_state(state)
        try:
            replace_own(self.path, content)
        except OSError as error:
            raise StateError(f"source {self._config.name}: {self.path} cannot be written: {problem(error, self.path)}"
                             ) from None
