"""What became of the messages of a run of `scripts/chaos`."""

import asyncio

import msgspec
from msgspec import Struct

from pipeline.config.iggy_schema import IggyConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.testbed.chaos.faults import Sandbox
from pipeline.testbed.chaos.producer import Producer, bad, number_of
from pipeline.testbed.harness import telemetry

DEAD_LETTERS = "influxdb-dlq"
#: Points are listed, to name the missing ones, up to so many.
LISTED_POINTS = 300_000
#: What a process logs that fails by itself: none may.
FAILURE = "this is a fault in the pipeline"
#: Missing messages that are shown.
SHOWN_MISSING = 20


class Account(Struct, kw_only=True):
    """What became of the messages."""

    sent: int
    stored: int = 0
    dead_lettered: int = 0
    #: Poisons that were sent beside; each has to be a dead letter.
    poisons: int = 0
    #: Numbers of messages that are neither stored nor dead letters, as far as they were listed.
    missing: list[int] = []
    lost: int = 0
    #: Points that no message stands for.
    unexpected: int = 0


def account_of(producer: Producer, sandbox: Sandbox, iggy: str) -> Account:
    """Compares what was sent with what is stored in a sandbox InfluxDB, and with the dead letters in the Iggy at
    host:port."""
    account = Account(sent=producer.sent)
    good = {number for number in range(account.sent) if not bad(number)}
    account.stored = sandbox.call("GET", "/sandbox/count?bucket=sandbox")["points"]
    letters = asyncio.run(_dead_letters(iggy))
    account.dead_lettered = sum(number >= 0 for number in letters)
    account.poisons = producer.poisons_sent
    wrong = letters ^ {number for number in range(-account.poisons, account.sent) if number < 0 or bad(number)}
    account.missing = sorted(wrong - good)
    lost = len(account.missing)
    if account.stored == len(good) or account.stored > LISTED_POINTS:
        lost += max(0, len(good) - account.stored)
        account.unexpected = max(0, account.stored - len(good))
    else:
        stored = _stored_numbers(sandbox)
        account.missing += sorted(good - stored)
        lost += len(good - stored)
        account.unexpected = len(stored - good)
    account.lost = lost
    return account


def _stored_numbers(sandbox: Sandbox) -> set[int]:
    points = sandbox.call("GET", f"/sandbox/points?bucket=sandbox&limit={LISTED_POINTS}")
    return {(point["time"] // 1_000_000 - telemetry.FIRST_TIME_MS) // 1_000 * telemetry.DEVICES
            + int(dict(point["tags"])["device"].rpartition("-")[2]) for point in points}


async def _dead_letters(address: str) -> set[int]:
    """The numbers of the messages in the dead-letter topic, as `number_of` has them; none where there is no topic."""
    iggy = IggyConnection(IggyConfig(address=address))
    await iggy.ensure_connected()
    if not await iggy.partitions(telemetry.STREAM, DEAD_LETTERS):
        return set()
    return {number_of(msgspec.json.decode(letter)["payload"])
            for letter in await iggy.read_all(telemetry.STREAM, DEAD_LETTERS)}
