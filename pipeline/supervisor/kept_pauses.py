"""Pauses that hold after a restart: a file of the user's state folder, for each pipeline one."""

import logging
import os
from pathlib import Path

import msgspec

from pipeline.config.controls import Selection
from pipeline.config.schema import Config
from pipeline.errors import PipelineError
from pipeline.files import check_own_folder, describe, open_own, replace_own
from pipeline.http.place import identity

_decoder = msgspec.json.Decoder(tuple[Selection, ...])


def path_of(config: Config) -> Path:
    """The file: in systemd's StateDirectory, else below XDG_STATE_HOME."""
    home = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    folder = Path(home) if home else \
        Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "iggy-influxdb-pipeline"
    return folder / f"paused-{identity(config)}.json"


def read_pauses(config: Config, logger: logging.Logger) -> tuple[Selection, ...]:
    """What was paused with `--keep`. A file that cannot be used is logged, and pauses nothing."""
    try:
        path = path_of(config)
        with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
            return _decoder.decode(file.read(1_000_000))
    except (FileNotFoundError, RuntimeError):
        return ()
    except OSError as error:
        logger.warning("pauses that were kept %s; nothing is paused", describe(error))
    except msgspec.MsgspecError as error:
        logger.warning("%s does not hold pauses (%s); nothing is paused", path, error)
    return ()


def keep_pauses(config: Config, paused: tuple[Selection, ...]) -> None:
    """Keeps these pauses, and no others. Raises PipelineError."""
    path = path_of(config)
    try:
        if not paused:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_own_folder(path.parent)
        replace_own(path, msgspec.json.encode(paused))
    except OSError as error:
        raise PipelineError(f"pauses cannot be kept: {describe(error)}") from None
