"""Whether a pipeline lives, and whether it is ready; and if not, why. Pure."""

from typing import Final

from msgspec import Struct

from pipeline.config.plan import Plan
from pipeline.http.feeds import Snapshot
from pipeline.wire.common import CoordinatorStatus, Waiting

#: A message of the supervisor, or of a coordinator, is due every second. Older than this, it hangs or is replaced.
FRESH_SECONDS: Final = 10.0
#: A failure outside of the pipeline that is being retried makes it unready after this time, seconds: shorter ones are
#: everyday.
PATIENCE_SECONDS: Final = 10.0


class Reason(Struct, frozen=True, omit_defaults=True):
    """Why a pipeline is not ready, or what it waits for."""

    #: What is wrong, with what to do.
    reason: str
    #: The process that reports it; "" if it is about several.
    process: str = ""
    #: The sink or source that waits; "" if all do, or it is not known.
    name: str = ""
    #: Since when: seconds since 1970; 0 if that is not known.
    since: float = 0.0
    #: An operator has to act: it does not go on by itself.
    paused: bool = False


class Readiness(Struct, frozen=True):
    """Whether messages are moved now."""

    ready: bool
    #: What it waits for. Those of a ready pipeline have just begun.
    reasons: list[Reason]


def alive(snapshot: Snapshot) -> str:
    """Why the pipeline does not live; "" if it does. A coordinator that hangs is restarted by the supervisor."""
    if snapshot.supervisor is None:
        return "nothing was heard from the supervisor"
    silent = snapshot.now - snapshot.supervisor.now
    return f"nothing was heard from the supervisor for {silent:.0f} s" if silent > FRESH_SECONDS else ""


def readiness(plan: Plan, snapshot: Snapshot) -> Readiness:
    """Whether every direction is ready."""
    found: list[Reason] = []
    waiting: list[Reason] = []
    if why := alive(snapshot):
        found.append(Reason(why, "supervisor"))
    if snapshot.supervisor is not None and snapshot.supervisor.stopping:
        found.append(Reason("it is stopping", "supervisor"))
    if snapshot.supervisor is not None and (paused := snapshot.supervisor.controls.paused):
        waiting.append(Reason(f"an operator has paused {'; '.join(paused)}; go on with: pipeline resume", "supervisor",
                              paused=True))
    for coordinator, stages, status in (("coordinator", plan.stages(), snapshot.sink),
                                        ("source-coordinator", plan.source_stages(), snapshot.source)):
        if not stages:
            continue
        if status is None or snapshot.now - status.now > FRESH_SECONDS:
            found.append(Reason("it has sent nothing yet, or hangs", coordinator))
            continue
        both = [_reason(one) for one in status.waiting]
        lasting = [one for one in both if one.paused or snapshot.time - one.since > PATIENCE_SECONDS]
        found += lasting
        waiting += [one for one in both if one not in lasting]
        found += _unready(status, stages, bool(lasting), coordinator)
    return Readiness(not found, found + waiting)


def _unready(status: CoordinatorStatus, stages: list[str], explained: bool, coordinator: str) -> list[Reason]:
    missing = [name for name in stages if name not in status.pids]
    if missing:
        return [Reason(f"not started: {', '.join(missing)}", coordinator)]
    if status.fatal:
        return [Reason(status.fatal, coordinator)]
    return [] if status.ready or explained else [Reason("it is not known yet what to read", coordinator)]


def _reason(one: Waiting) -> Reason:
    return Reason(one.reason, one.process, one.name, one.since, one.paused)
