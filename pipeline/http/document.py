"""The document that `/status` answers: all that the status page and `pipeline status` show. Pure."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, structs

from pipeline import __version__
from pipeline.config.plan import Plan
from pipeline.http.feeds import Snapshot
from pipeline.http.health import FRESH_SECONDS, Readiness, readiness
from pipeline.http.history import Rates
from pipeline.http.procs import Usage
from pipeline.wire.common import CoordinatorStatus
from pipeline.wire.sink import GapStatus, RejectStatus, Status, UnreadStatus
from pipeline.wire.source import SourceStatus
from pipeline.wire.supervisor import ControlsStatus, ReloadStatus


class Process(Struct, frozen=True):
    """One process."""

    name: str
    kind: str
    #: Of this machine; 0 while it does not run, and for encoders of other machines.
    pid: int
    remote: bool = False
    started_at: float = 0.0
    restarts: int = 0
    last_death: str = ""
    #: None if it is not known.
    cpu_seconds: float | None = None
    rss_bytes: int | None = None
    #: Seconds since its last heartbeat; None for those that send none.
    silent_seconds: float | None = None
    #: The external failure that it is retrying; "" if there is none.
    waits_for: str = ""


class Partition(Struct, frozen=True):
    """One partition that a sink reads. Offsets are -1 where there is none yet."""

    stream: str
    topic: str
    partition: int
    committed: int
    dispatched: int
    end: int
    #: Messages that are not committed.
    lag: int
    #: Age of the oldest message that is not committed, seconds; None if it is not known.
    lag_seconds: float | None
    #: Oldest offset left in the log; -1: not known.
    first: int
    #: Seconds until Iggy deletes messages that are not committed; None where that is not to be expected.
    overtaken_in_seconds: float | None


class Sink(Struct, frozen=True):
    """The direction from Iggy to InfluxDB. Totals count from the coordinator's start."""

    started_at: float
    read: int
    encoded: int
    written: int
    rejected: int
    filtered: int
    overwritten: int
    missed: int
    truncations: int
    redelivered: int
    batches: int
    sent_bytes: int
    in_flight: int
    in_flight_bytes: int
    window_messages: int
    window_bytes: int
    partitions: list[Partition]
    gaps: list[GapStatus]
    #: Partitions that no process of this pipeline reads, and why.
    unread: list[UnreadStatus]
    #: The last messages that were rejected, the newest first.
    dead_letters: list[RejectStatus]


class Measurement(Struct, frozen=True):
    """One measurement that a source reads."""

    source: str
    measurement: str
    #: All points before it are in Iggy: seconds since 1970.
    watermark: float
    behind_seconds: float
    in_flight: int
    #: How much of what existed at the start is in Iggy, by time, 0 to 1.
    share: float
    #: Points that were written after their time was read, as far as they were counted.
    late: int


class SourceProgress(Struct, frozen=True):
    """One source: what it has sent, and how far it has caught up."""

    source: str
    rows: int
    points: int
    messages: int
    sent_bytes: int
    rejected: int
    repeated: int
    pages: int
    #: How much of what existed at the start is in Iggy, by time, 0 to 1: the mean of its measurements.
    share: float
    #: About how long the rest takes, if it goes on as in the last minutes; None while that cannot be told.
    seconds_left: float | None
    #: Points that were written after their time was read, and so were missed, as far as they were counted.
    late: int


class Source(Struct, frozen=True):
    """The direction from InfluxDB to Iggy. Totals count from the coordinator's start."""

    started_at: float
    rows: int
    points: int
    messages: int
    rejected: int
    repeated: int
    pages: int
    redelivered: int
    sent_bytes: int
    in_flight: int
    caught_up: bool
    future: int
    #: As of the sources: the mean, and that of the slowest.
    share: float
    seconds_left: float | None
    sources: list[SourceProgress]
    measurements: list[Measurement]


class Document(Struct, frozen=True):
    """The answer of `/status`."""

    time: float
    version: str
    #: Of the supervisor.
    pid: int
    started_at: float
    #: "starting", "running", "waiting" (for something outside), "paused" (an operator has to act), "stopping".
    state: str
    readiness: Readiness
    #: Whether it shows what was in messages, and `/payload` does: to the holder of the token, and over the local
    #: socket.
    shows_messages: bool
    rates: Rates
    processes: list[Process]
    #: None where the pipeline has no such direction, or nothing is known yet.
    sink: Sink | None
    source: Source | None
    #: Files and folders that the configuration was read from, and how it was read again the last time.
    files: tuple[str, ...]
    reload: ReloadStatus
    #: What an operator has changed: pauses, and the level of the log.
    controls: ControlsStatus
    #: The effective configuration, secrets hidden.
    config: Mapping[str, Any]


def make_document(plan: Plan, snapshot: Snapshot, rates: Rates, usage: Mapping[int, Usage], config: Mapping[str, Any],
                  with_payloads: bool) -> Document:
    """The document. Without `with_payloads` it has nothing of what was in messages."""
    ready = readiness(plan, snapshot)
    supervisor = snapshot.supervisor
    return Document(
        snapshot.time, __version__, supervisor.pid if supervisor else 0, supervisor.started_at if supervisor else 0.0,
        state_of(snapshot, ready), ready, with_payloads, rates, _processes(snapshot, usage),
        _sink(plan, snapshot, snapshot.sink, with_payloads) if snapshot.sink else None,
        _source(snapshot, snapshot.source) if snapshot.source else None,
        plan.files, supervisor.reload if supervisor else ReloadStatus(),
        supervisor.controls if supervisor else ControlsStatus(), config)


def state_of(snapshot: Snapshot, ready: Readiness) -> str:
    """The state of the pipeline in one word; see `Document.state`."""
    if snapshot.supervisor is not None and snapshot.supervisor.stopping:
        return "stopping"
    if any(reason.paused for reason in ready.reasons) or (snapshot.supervisor and snapshot.supervisor.controls.paused):
        return "paused"
    if any(reason.since for reason in ready.reasons):
        return "waiting"
    return "running" if ready.ready else "starting"


def _processes(snapshot: Snapshot, usage: Mapping[int, Usage]) -> list[Process]:
    supervisor = snapshot.supervisor
    if supervisor is None:
        return []
    statuses = [status for status in (snapshot.sink, snapshot.source) if status is not None]
    waits = {one.process: one.reason for status in statuses for one in status.waiting}
    heard = {name: max(0.0, snapshot.now - at) for status in statuses for name, at in status.last_heard.items()}
    found = [Process("supervisor", "supervisor", supervisor.pid, False, supervisor.started_at,
                     **_used(usage, supervisor.pid))]
    found += [Process(one.name, one.kind, one.pid, False, one.started_at, one.restarts, one.last_death,
                      silent_seconds=heard.get(one.name), waits_for=waits.get(one.name, ""), **_used(usage, one.pid))
              for one in supervisor.processes]
    known = {one.name for one in found}
    found += [Process(name, name.partition("-")[0], 0, True, silent_seconds=heard.get(name),
                      waits_for=waits.get(name, ""))
              for status in statuses for name in status.pids if name not in known]
    return found


def _used(usage: Mapping[int, Usage], pid: int) -> dict[str, Any]:
    found = usage.get(pid)
    return {} if found is None else {"cpu_seconds": round(found.cpu_seconds, 2), "rss_bytes": found.rss_bytes}


def _sink(plan: Plan, snapshot: Snapshot, status: Status, with_payloads: bool) -> Sink:
    letters = [one if with_payloads else structs.replace(one, detail="", line="") for one in reversed(status.rejects)]
    return Sink(
        **_common(status, Sink), window_messages=plan.config.pipeline.window_messages,
        window_bytes=plan.config.pipeline.window_bytes, dead_letters=letters,
        partitions=[Partition(one.stream, one.topic, one.partition, one.committed, one.dispatched, one.end, one.lag,
                              one.lag_seconds(snapshot.time), one.first,
                              one.overtaken_in if one.overtaken_in >= 0 else None) for one in status.partitions])


def _source(snapshot: Snapshot, status: SourceStatus) -> Source:
    return Source(
        **_common(status, Source), seconds_left=_known(status.seconds_left),
        sources=[SourceProgress(one.source, one.rows, one.points, one.messages, one.sent_bytes, one.rejected,
                                one.repeated, one.pages, one.share, _known(one.seconds_left), one.late)
                 for one in status.totals],
        measurements=[Measurement(one.source, one.measurement, one.watermark / 1e9,
                                  max(0.0, snapshot.time - one.watermark / 1e9), one.in_flight, one.share, one.late)
                      for one in status.measurements])


def _known(seconds: float) -> float | None:
    return seconds if seconds >= 0 else None


def _common(status: CoordinatorStatus, kind: type[Struct]) -> dict[str, Any]:
    """The fields of a document that a Status has under the same name, and in the same form."""
    special = {"partitions", "measurements", "dead_letters", "seconds_left"}
    return {name: getattr(status, name) for name in kind.__struct_fields__
            if name not in special and hasattr(status, name)}


def is_fresh(snapshot: Snapshot, status: CoordinatorStatus) -> bool:
    """Whether a coordinator's figures are those of now."""
    return snapshot.now - status.now <= FRESH_SECONDS
