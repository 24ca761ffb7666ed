"""Writes files of configurations."""

import os
import stat
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files import describe, sync_folder


def write_new_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Writes a file that does not exist yet. Raises PipelineError."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w",
                       encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
    except FileExistsError:
        raise PipelineError(f"{path} exists; move it away, or give another name") from None
    except OSError as error:
        raise PipelineError(f"{path} {describe(error, path)}") from None


def replace_file(path: Path, text: str) -> None:
    """Replaces a file in one step, and keeps its mode; of a link, the file that it leads to. Raises PipelineError."""
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".{path.name}.new")
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w",
                       encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise PipelineError(f"{path} {describe(error, path)}") from None
