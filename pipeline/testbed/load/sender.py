"""One process of the load: sends its part of the messages as they become due."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import MappingConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.testbed.load.schedule import Schedule
from pipeline.testbed.load.telemetry import Telemetry, TimeForm

#: Messages of one send, at most.
SEND_MESSAGES = 1_000
#: Sends are at least so far apart, seconds: what becomes due in between goes together.
TICK_SECONDS = 0.002


class Part(Struct, frozen=True):
    """What one process sends: every `parts`th message from `first` on."""

    iggy: IggyConfig
    stream: str
    topic: str
    partitions: int
    schedule: Schedule
    series: int
    fields: int
    size: int
    time: TimeForm
    mapping: MappingConfig
    #: When message 0 is due, seconds since 1970.
    begins_at: float
    first: int = 0
    parts: int = 1
    #: Send the messages of one of `workloads.catalogue.NAMES` instead; "": telemetry.
    workload: str = ""


class Sent(Struct, frozen=True):
    """What one process has done."""

    messages: int
    #: Most that a send's confirmation came after a message's intended time, seconds.
    latest: float
    #: When the last message was confirmed, seconds since the beginning.
    ended: float


async def send_part(part: Part, clock: Callable[[], float] = time.time) -> Sent:
    """Sends the part, each message no sooner than it is due. Raises IggyError."""
    iggy = IggyConnection(part.iggy)
    await iggy.connect()
    make = (messages_of(part.workload) if part.workload else
            Telemetry(part.series, part.fields, part.size, part.time, part.mapping).message)
    schedule, total = part.schedule, part.schedule.messages
    number, sends, latest, count = part.first, 0, 0.0, 0
    while number < total:
        wait = part.begins_at + schedule.time_of(number) - clock()
        if wait > 0:
            await asyncio.sleep(max(wait, TICK_SECONDS))
        due = schedule.due(clock() - part.begins_at)
        numbers = range(number, min(due, number + SEND_MESSAGES * part.parts), part.parts)
        if not numbers:
            continue
        payloads = [make(n, round((part.begins_at + schedule.time_of(n)) * 1e6)) for n in numbers]
        await iggy.send(part.stream, part.topic, payloads, (part.first + sends) % part.partitions)
        latest = max(latest, clock() - part.begins_at - schedule.time_of(number))
        sends, count, number = sends + 1, count + len(numbers), numbers[-1] + part.parts
    return Sent(count, latest, clock() - part.begins_at)


def messages_of(name: str) -> Callable[[int, int], bytes]:
    """Makes message `n` of a workload, with a time in microseconds since 1970."""
    from pipeline.testbed.workloads.catalogue import workload

    with tempfile.TemporaryDirectory() as folder:
        return workload(name, Path(folder)).message


def run_part(part: Part) -> Sent:
    """`send_part`, to its end: what a process of the load runs."""
    return asyncio.run(send_part(part))
