"""What a process works on, in a file that outlives it: so it is known what a process died of, or hangs on.

A message to the coordinator would cost it a look for each batch, and may be lost with the process that sends it. Memory
that a file is mapped to costs 0.3 us a batch, and the kernel keeps it however the process ends.
"""

import logging
import mmap
import os
import struct
from pathlib import Path
from typing import Final

from pipeline.wire.sink import Partition, Range

#: The fields of a Range, in order.
_RANGE: Final = struct.Struct("<9q")
#: Where they are; before them is one byte: whether they count. And where the beats are counted.
_AT: Final = 8
_BEATS: Final = struct.Struct("<Q")
_BEATS_AT: Final = 128
_SIZE: Final = mmap.PAGESIZE


def work_path(folder: str, name: str) -> Path:
    """The file of the process `name`."""
    return Path(folder) / f"{name}.work"


class WorkFile:
    """Written by one process; a new one of the same name begins with nothing."""

    def __init__(self, folder: str, name: str, logger: logging.Logger) -> None:
        """Without a folder, or where the file cannot be made, nobody learns what it worked on."""
        self._memory = mmap.mmap(-1, _SIZE)
        if folder:
            try:
                self._memory = _mapped(work_path(folder, name))
            except OSError as error:
                logger.warning("%s can't be made: %s; what this process dies of will not be known",
                               work_path(folder, name), error.strerror)
        self.end()

    def begin(self, range_: Range) -> None:
        """The process works on this range from now on."""
        partition = range_.partition
        _RANGE.pack_into(self._memory, _AT, range_.epoch, partition.topic, partition.number, range_.first, range_.last,
                         range_.messages, range_.bytes, range_.generation, range_.ingest)
        self._memory[0] = 1

    def end(self) -> None:
        """The process works on none."""
        self._memory[0] = 0

    def beat(self) -> None:
        """Shows that the process does not hang."""
        (beats,) = _BEATS.unpack_from(self._memory, _BEATS_AT)
        _BEATS.pack_into(self._memory, _BEATS_AT, beats + 1)


def _mapped(path: Path) -> mmap.mmap:
    """Raises OSError where the file cannot be made, or has no room."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # Room for it now: to write to memory without any ends a process.
        os.posix_fallocate(descriptor, 0, _SIZE)
        return mmap.mmap(descriptor, _SIZE)
    finally:
        os.close(descriptor)


def work_of(folder: str, name: str) -> Range | None:
    """What the process `name`, which has ended, worked on; None where that was nothing, or is not known."""
    try:
        content = work_path(folder, name).read_bytes()
    except OSError:
        return None
    if len(content) < _AT + _RANGE.size or content[0] != 1:
        return None
    epoch, topic, partition, *rest = _RANGE.unpack_from(content, _AT)
    return Range(epoch, Partition(topic, partition), *rest)


def beats_of(folder: str, name: str) -> int:
    """How often the process `name` has shown that it does not hang; 0 where that is not known."""
    try:
        content = work_path(folder, name).read_bytes()
    except OSError:
        return 0
    return int(_BEATS.unpack_from(content, _BEATS_AT)[0]) if len(content) >= _BEATS_AT + _BEATS.size else 0
