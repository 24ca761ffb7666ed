"""The producer of `scripts/chaos`: sends numbered messages, good, bad and poisonous, until each batch is confirmed."""

import asyncio
import random
import threading

from pipeline.config.iggy_schema import IggyConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError
from pipeline.testbed.harness import telemetry

#: Of so many messages one can't become a point.
BAD_EVERY = 97
#: Messages of one send.
BATCH_MESSAGES = 50
#: Pause before a batch that wasn't confirmed is sent again, seconds. It may be in the log twice then: points are equal.
RETRY_SECONDS = 0.2


def bad(number: int) -> bool:
    """Whether message `number` is one that can't become a point."""
    return number % BAD_EVERY == 0


def payload(number: int) -> bytes:
    """Message `number`."""
    return b"not json: %d" % number if bad(number) else telemetry.telemetry(number)


#: How the text of a poison begins, before its number.
POISON_PREFIX = '{"poison":'
#: What follows its number: too deep, too many keys, quotes without end, gigabytes of names or of text, no JSON.
POISONS = (
    b',"a":' + b'{"a":' * 1_000,
    b',"a":1' + b"".join([b',"k%d":1' % number for number in range(30_000)]) + b"}",
    b',"v":NaN,' + b'"\\' * 22_000,
    b',"' + b"k" * 200_000 + b'":{' + b",".join([b'"m%d":1' % number for number in range(6_000)]) + b"}}",
    b',"a":[' + b"[" * 950 + b"]" * 950 + b"]}",
    b',"site":True}',
)


def number_of(payload: str) -> int:
    """The number of a bad message, or -1 less that of a poison, by its text."""
    if payload.startswith(POISON_PREFIX):
        return -1 - int(payload[len(POISON_PREFIX):payload.index(",")])
    return int(payload.rpartition(" ")[2])


def poison(number: int) -> bytes:
    """Poison `number`: a message that once stopped, stalled or swelled a pipeline."""
    return POISON_PREFIX.encode() + b"%d" % number + POISONS[number % len(POISONS)]


class Producer:
    """Sends on a thread of its own at a steady rate, from `start` to `stop`."""

    def __init__(self, address: str, partitions: int, rate: int, rng: random.Random) -> None:
        """`rate` in messages a second."""
        self._address = address
        self._partitions = partitions
        self._rate = rate
        self._rng = rng
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        #: Messages 0 to `sent` (exclusive) are confirmed by Iggy.
        self.sent = 0
        #: Poisons 0 to `poisons` (exclusive) are to be sent, and so many are confirmed.
        self.poisons = self.poisons_sent = 0
        #: Batches that had to be sent again.
        self.retries = 0

    def add_poisons(self, count: int) -> None:
        """Sends so many more, one after each of the next batches."""
        self.poisons += count

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Sends no new batch; True when the last one was confirmed within `seconds`."""
        self._stopping.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    async def _run(self) -> None:
        iggy = IggyConnection(IggyConfig(address=self._address, call_timeout_ms=3_000))
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._stopping.is_set() or self.poisons_sent < self.poisons:
            due = max(due + BATCH_MESSAGES / self._rate, loop.time() - 1.0)
            await asyncio.sleep(max(0.0, due - loop.time()))
            payloads = [payload(number) for number in range(self.sent, self.sent + BATCH_MESSAGES)]
            await self._send(iggy, payloads, self._rng.randrange(self._partitions))
            self.sent += BATCH_MESSAGES
            if self.poisons_sent < self.poisons:
                await self._send(iggy, [poison(self.poisons_sent)], self._rng.randrange(self._partitions))
                self.poisons_sent += 1

    async def _send(self, iggy: IggyConnection, payloads: list[bytes], partition: int) -> None:
        """Until it is confirmed."""
        while True:
            try:
                await iggy.ensure_connected()
                await iggy.send(telemetry.STREAM, telemetry.TOPIC, payloads, partition)
                return
            except IggyError:
                self.retries += 1
                await asyncio.sleep(RETRY_SECONDS)
