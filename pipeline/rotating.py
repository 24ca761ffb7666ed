"""An NDJSON file that is closed, numbered and begun anew at a size."""

import os
from pathlib import Path


class RotatingFile:
    """Appends lines; `name` is the newest, `name.1` the one before, and so on."""

    def __init__(self, name: str, max_bytes: int, keep: int) -> None:
        """`max_bytes` of one file; `keep` files beside the newest. Nothing is opened yet."""
        self._path = Path(name)
        self._max_bytes = max_bytes
        self._keep = keep

    def write(self, lines: list[bytes]) -> None:
        """Appends lines and waits until they are on the disk. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        data = b"".join([line + b"\n" for line in lines])
        if self._path.exists() and self._path.stat().st_size + len(data) > self._max_bytes:
            self._rotate()
        with self._path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def files(self) -> list[Path]:
        """All files that are there, the oldest first."""
        return [path for path in (*(self._numbered(number) for number in range(self._keep, 0, -1)), self._path)
                if path.exists()]

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _rotate(self) -> None:
        for number in range(self._keep, 1, -1):
            if self._numbered(number - 1).exists():
                self._numbered(number - 1).replace(self._numbered(number))
        self._path.replace(self._numbered(1))
