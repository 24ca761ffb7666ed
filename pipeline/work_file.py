"""Records the ranges that a process is working on in a file that outlives it: what it died of, or hangs on.

A message would cost the coordinator a wake-up for each batch, and could be lost with its sender. A memory-mapped file
costs 0.3 us a batch, and the kernel keeps its content however the process ends.
"""

import logging
import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.wire.sink import Partition, Range

#: The fields of a Range, in their order.
_RANGE: Final = struct.Struct("<9q")
#: The number of ranges that are being worked on, and of beats, each with its offset in the file; then the ranges.
_COUNT: Final = struct.Struct("<I")
_COUNT_AT: Final = 0
_BEATS: Final = struct.Struct("<Q")
_BEATS_AT: Final = 64
_AT: Final = 128
#: Ranges that are recorded, at most: no write request has more.
MAX_RANGES: Final = 500
_SIZE: Final = _AT + MAX_RANGES * _RANGE.size


def work_path(folder: str, name: str) -> Path:
    """Path of the work file of the process `name`."""
    return Path(folder) / f"{name}.work"


class WorkFile:
    """The work file of one process, which alone writes it. A new process of the same name starts with no range."""

    def __init__(self, folder: str, name: str, logger: logging.Logger) -> None:
        """With no folder, or if the file cannot be made, the ranges are recorded in memory only, and are lost at its
        end."""
        self._memory = mmap.mmap(-1, _SIZE)
        #: What the file holds.
        self._ranges: Sequence[Range] = ()
        if folder:
            try:
                self._memory = _mapped(work_path(folder, name))
            except OSError as error:
                logger.warning("cannot make %s: %s; a message that kills this process cannot be identified. Free space "
                               "in the folder, or correct its mode", work_path(folder, name), error.strerror)
        self.end()

    def begin(self, ranges: Sequence[Range]) -> None:
        """Records that the process starts to work on these ranges, all at the same time."""
        if ranges is not self._ranges:
            at = _AT
            for range_ in ranges[:MAX_RANGES]:
                partition = range_.partition
                _RANGE.pack_into(self._memory, at, range_.epoch, partition.topic, partition.number, range_.first,
                                 range_.last, range_.messages, range_.bytes, range_.generation, range_.ingest)
                at += _RANGE.size
            self._ranges = ranges
        _COUNT.pack_into(self._memory, _COUNT_AT, min(len(ranges), MAX_RANGES))

    def end(self) -> None:
        """Records that the process works on no range."""
        _COUNT.pack_into(self._memory, _COUNT_AT, 0)

    def beat(self) -> None:
        """Counts a beat, which shows that the process does not hang."""
        (beats,) = _BEATS.unpack_from(self._memory, _BEATS_AT)
        _BEATS.pack_into(self._memory, _BEATS_AT, beats + 1)


def _mapped(path: Path) -> mmap.mmap:
    """Maps the file, made if necessary. Raises OSError if it cannot be made or the disk is full."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # Allocate now: writing to mapped memory on a full disk would kill the process (SIGBUS).
        os.posix_fallocate(descriptor, 0, _SIZE)
        return mmap.mmap(descriptor, _SIZE)
    finally:
        os.close(descriptor)


def work_of(folder: str, name: str) -> list[Range]:
    """The ranges that the process `name`, which has ended, was working on; none if there were none, or unknown."""
    try:
        content = work_path(folder, name).read_bytes()
    except OSError:
        return []
    if len(content) < _AT:
        return []
    (count,) = _COUNT.unpack_from(content, _COUNT_AT)
    found = _RANGE.iter_unpack(content[_AT:_AT + min(count, (len(content) - _AT) // _RANGE.size) * _RANGE.size])
    return [Range(epoch, Partition(topic, partition), *rest) for epoch, topic, partition, *rest in found]


def beats_of(folder: str, name: str) -> int:
    """How many beats the process `name` has counted; 0 if unknown."""
    try:
        content = work_path(folder, name).read_bytes()
    except OSError:
        return 0
    return int(_BEATS.unpack_from(content, _BEATS_AT)[0]) if len(content) >= _BEATS_AT + _BEATS.size else 0
