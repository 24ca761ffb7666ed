"""What the supervisor publishes about the processes (PUB), for the HTTP process."""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from pipeline.wire.common import Count


class ProcessStatus(Struct, frozen=True):
    """One process of this machine."""

    name: str
    #: As in `name`, without the number: "encode".
    kind: str
    #: 0 while it does not run.
    pid: Count
    #: When it was started last, seconds since 1970; 0 before.
    started_at: float
    #: How often it was started again because it had died.
    restarts: Count
    #: How it ended the last time, for people; "" if it never did.
    last_death: str = ""


#: Of a reload: none was asked for; it is under way; the new configuration is used; or it cannot be.
Outcome = Literal["none", "running", "done", "failed"]


class ReloadStatus(Struct, frozen=True):
    """The last reload."""

    #: Reloads so far.
    number: Count = 0
    outcome: Outcome = "none"
    #: What has changed, or every mistake.
    lines: list[str] = []


class ControlsStatus(Struct, frozen=True):
    """What an operator has changed."""

    #: Requests so far, and why the last one could not be fulfilled; "" if it was.
    number: Count = 0
    error: str = ""
    #: What is paused, for people.
    paused: list[str] = []
    #: The level of the log; "": that of the configuration.
    log_level: str = ""


class SupervisorStatus(Struct, frozen=True, tag=True):
    """Supervisor -> HTTP process: every second, and when a process has ended or was started."""

    #: When this was sent: seconds, CLOCK_MONOTONIC.
    now: float
    pid: Count
    #: Seconds since 1970.
    started_at: float
    #: `Plan.run`.
    run: str
    #: It finishes what is in flight, and ends.
    stopping: bool
    processes: list[ProcessStatus]
    reload: ReloadStatus = ReloadStatus()
    controls: ControlsStatus = ControlsStatus()


_decoder = msgspec.msgpack.Decoder(SupervisorStatus)


def decode_supervisor_status(frame: Any) -> SupervisorStatus:
    """A SupervisorStatus, which is one frame. Raises msgspec.DecodeError or ValidationError for anything else."""
    return _decoder.decode(frame)
