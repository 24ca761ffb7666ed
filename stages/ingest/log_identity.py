"""Whether a partition's log is still the one that was read. Pure.

A server that crashes loses the messages that it has not saved, and reuses their offsets: a reader that only counts
offsets would wait for ever, or skip the new messages at offsets that it has read.
"""

from typing import Protocol

from msgspec import Struct


class _Details(Protocol):
    """A partition in a topic's details."""

    @property
    def current_offset(self) -> int: ...
    @property
    def messages_count(self) -> int: ...
    @property
    def created_at(self) -> int: ...


class LogState(Struct, frozen=True):
    """A partition's log as the server describes it."""

    #: Offset that the next message will have; 0 for an empty log whose current offset is 0.
    next: int
    #: When it was created, microseconds since 1970.
    created_at: int
    empty: bool


class Message(Struct, frozen=True):
    """The offset of a message and Iggy's time of it, microseconds since 1970."""

    offset: int
    time: int


def log_state(details: _Details) -> LogState:
    """The state in a partition's details. The current offset is 0 both before and after the first message."""
    empty = details.messages_count == 0
    next_ = 0 if empty and details.current_offset == 0 else details.current_offset + 1
    return LogState(next_, details.created_at, empty)


def is_cut_off(position: int, state: LogState) -> bool:
    """Whether the log ends before `position`, the next offset to read."""
    return position > state.next


def seems_recreated(created_at: int, state: LogState) -> bool:
    """Whether the partition has another creation time than `created_at` (0: not known)."""
    return bool(created_at) and created_at != state.created_at


def was_recreated(state: LogState, oldest: Message | None) -> bool:
    """Whether a partition that seems so was created again: then no message in it is older than the partition.

    `oldest` is its first message, None when it is empty.
    """
    return oldest is None or oldest.time >= state.created_at


def is_another_log(position: int, time: int, before: Message | None) -> bool:
    """Whether a log that reaches to `position` is not the one that was read.

    `before` is the message that a poll at `position - 1` returns now, and `time` the time of the message that was read
    there. A message that has expired meanwhile proves nothing, nor does one whose time is not known (0).
    """
    return before is not None and before.offset == position - 1 and bool(time) and before.time != time


def stored_position(stored: int) -> int:
    """The offset to start at when `stored` (0 or more) is stored.

    A crash of the server reduces stored offsets to what is left of the log, and to 0 when nothing is left. So 0 means
    that message 0 was settled, or that there is none yet: to read it again is harmless, to skip it is not.
    """
    return stored + 1 if stored else 0
