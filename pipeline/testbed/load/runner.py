"""Runs the processes of a load, and reports the result."""

import asyncio
import multiprocessing
import os
import time
from multiprocessing.connection import Connection

from msgspec import Struct
from msgspec.structs import replace

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import MappingConfig
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.interrupts import end_with_parent, start_blocked
from pipeline.testbed.load.schedule import Schedule, Shape
from pipeline.testbed.load.sender import Part, Sent, run_part
from pipeline.testbed.load.telemetry import DEFAULT_MAPPING, DEFAULT_TIME, Telemetry, TimeForm

#: Rate that one process can send, messages a second; more processes are started for a higher rate.
RATE_OF_A_PROCESS = 100_000
#: The same for the messages of a workload, which are made more slowly.
WORKLOAD_RATE = 20_000
#: Time until message 0 is due, seconds, in which the processes start.
LEAD_SECONDS = 1.0
#: If a confirmation was later than this, the rate was not held, seconds.
HELD_SECONDS = 1.0


class LoadOptions(Struct, frozen=True, kw_only=True):
    """What to send, and where."""

    iggy: IggyConfig
    stream: str
    topic: str
    #: Messages a second.
    rate: float = 10_000
    series: int = 1_000
    fields: int = 5
    #: Bytes of a message; 0: no more than its fields need.
    size: int = 0
    time: TimeForm = DEFAULT_TIME
    #: The mapping that will read the messages.
    mapping: MappingConfig = DEFAULT_MAPPING
    #: Partitions of the topic, if it is created.
    partitions: int = 2
    seconds: float = 10
    shape: Shape = "steady"
    #: Send the messages of one of `workloads.catalogue.NAMES`: `series` to `mapping` say nothing then.
    workload: str = ""


class LoadResult(Struct, frozen=True):
    """The result of a load."""

    messages: int
    #: Rate from message 0's time to the last confirmation, messages a second.
    rate: float
    #: Longest time from a message's due time to its confirmation, seconds.
    latest_seconds: float
    processes: int
    #: Whether the rate was held.
    held: bool

    def summary(self) -> str:
        """The result as text."""
        warning = "" if self.held else (f"; THE RATE WAS NOT HELD: sends were up to {self.latest_seconds:.1f} s late; "
                                     "give a lower --rate, or a faster server or machine")
        return (f"sent {self.messages:,} messages at {self.rate:,.0f}/s from {self.processes} processes, "
                f"confirmed at most {self.latest_seconds * 1000:.0f} ms after they were due{warning}")


def run_load(options: LoadOptions) -> LoadResult:
    """Makes the topic if it is missing, and sends the load. Raises PipelineError."""
    schedule = Schedule(options.rate, options.seconds, options.shape)
    try:
        Telemetry(options.series, options.fields, options.size, options.time, options.mapping)
        partitions = asyncio.run(_prepare(options))
    except ValueError as error:
        raise PipelineError(str(error)) from None
    peak = options.rate * (10 if options.shape == "burst" else 1)
    rate = WORKLOAD_RATE if options.workload else RATE_OF_A_PROCESS
    processes = max(1, min(round(peak / rate + 0.5), os.cpu_count() or 1))
    whole = Part(
        iggy=options.iggy, stream=options.stream, topic=options.topic, partitions=partitions, schedule=schedule,
        series=options.series, fields=options.fields, size=options.size, time=options.time, mapping=options.mapping,
        workload=options.workload, begins_at=time.time() + LEAD_SECONDS, parts=processes)
    return summary(_run_parts([replace(whole, first=first) for first in range(processes)]), options.seconds)


def _run_parts(parts: list[Part]) -> list[Sent]:
    """What a process for each part has sent. Raises PipelineError."""
    context = multiprocessing.get_context("spawn")
    outcomes = []
    for part in parts:
        outcome, theirs = context.Pipe(duplex=False)
        start_blocked(context.Process(target=_run_part, args=(part, os.getpid(), theirs), daemon=True))
        theirs.close()
        outcomes.append(outcome)
    sent = []
    for outcome in outcomes:
        try:
            found: Sent | str = outcome.recv()
        except EOFError:
            found = "a process of the load was killed; nothing more is sent"
        if isinstance(found, str):
            raise PipelineError(found)
        sent.append(found)
    return sent


def _run_part(part: Part, parent: int, outcome: Connection) -> None:
    """What a process of the load runs: sends `Sent`, or what went wrong, to `outcome`."""
    end_with_parent(parent)
    try:
        outcome.send(run_part(part))
    except PipelineError as error:
        outcome.send(str(error))
    # Threads of the Iggy client must not hold the process up.
    os._exit(0)


def summary(sent: list[Sent], seconds: float) -> LoadResult:
    """What all processes have done together in a load that was to last `seconds`."""
    messages, latest = sum(part.messages for part in sent), max(part.latest for part in sent)
    return LoadResult(messages, messages / max(seconds, *(part.ended for part in sent)), latest, len(sent),
                      latest <= HELD_SECONDS)


async def _prepare(options: LoadOptions) -> int:
    iggy = IggyConnection(options.iggy)
    await iggy.connect()
    await iggy.make_topic(options.stream, options.topic, options.partitions)
    return await iggy.partitions(options.stream, options.topic) or options.partitions
