"""Dead-letter: keeps the messages that can't be written, with all that is known of why, and only then confirms them.

The payload is read again from Iggy, which still has it: the source's offset is not stored before the confirmation.
"""

import asyncio
import logging
import os
import time
from datetime import UTC, datetime

import zmq
import zmq.asyncio
from apache_iggy import ReceiveMessage
from msgspec import Struct

from pipeline import __version__
from pipeline.backoff import Backoff
from pipeline.config.plan import Plan
from pipeline.config.schema import Subscription
from pipeline.dead_letters.letters import DeadLetter, encode_letter
from pipeline.dead_letters.stores import SEND_BYTES, SEND_RECORDS, DeadLetterStore, StoreError, TopicStore, stores
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError, IggyNotFound
from pipeline.iggy.headers import headers_of
from pipeline.logs import RepeatFilter
from pipeline.sockets.control_link import HEARTBEAT_SECONDS
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.intake import Dropped
from pipeline.sockets.sink_rules import WireRules
from pipeline.wire import common
from pipeline.wire import sink as wire
from pipeline.wire.frames import cut

#: Messages asked for at once while reading payloads again, and their bytes, as far as the batch's average tells.
MESSAGES_AT_ONCE, BYTES_AT_ONCE = 1_000, 8_000_000
#: Pauses between tries while the target or the source is unavailable, seconds.
RETRY_SECONDS, RETRY_MAX_SECONDS = 0.5, 30.0


class Burial:
    """The rejects of one batch, while their letters are made and stored: what is stored is not stored again."""

    def __init__(self, bury: wire.StoreDeadLetters) -> None:
        self.range = bury.range
        #: Rejects whose messages are still to be read, by offset.
        self.rest = sorted(bury.rejects, key=lambda reject: reject.offset)
        #: Letters with their messages' payloads (None: gone from Iggy), and how many of them each store has.
        self.letters: list[tuple[DeadLetter, bytes | None]] = []
        self.stored: dict[str, int] = {}
        #: The first offset of `rest` was there when it was looked at.
        self.is_there = False

    def count(self) -> int:
        """How many messages to ask for, from the first of `rest`: their bytes are bounded.

        A range is bounded by `pipeline.max_batch_bytes`, but what comes behind it is not: so the first is asked for
        alone. When it is there, all others are: Iggy expires whole segments, the oldest first.
        """
        if not self.is_there:
            return 1
        average = self.range.bytes // max(1, self.range.messages)
        span = self.rest[-1].offset - self.rest[0].offset + 1
        return max(1, min(span, MESSAGES_AT_ONCE, BYTES_AT_ONCE // max(1, average)))

    def take(self, polled: list[ReceiveMessage]) -> list[tuple[wire.Reject, ReceiveMessage | None]]:
        """The rejects that an answer decides on, with their messages. All of `rest` when it is empty."""
        self.is_there = bool(polled) and polled[0].offset() == self.rest[0].offset
        end = polled[-1].offset() if polled else self.rest[-1].offset
        found = {message.offset(): message for message in polled}
        if polled and not self.is_there:
            # They are of another batch, but for the rejects that are still there; these are asked for in turn.
            end = polled[0].offset() - 1
        decided = [reject for reject in self.rest if reject.offset <= end]
        self.rest = self.rest[len(decided):]
        return [(reject, found.get(reject.offset)) for reject in decided]


class DeadLetterStage:
    """One per pipeline. Duplicates are possible where a process died between keeping and confirming."""

    def __init__(self, plan: Plan, logger: logging.Logger) -> None:
        self.logger = logger
        self.options = plan.config.dead_letters
        self.topics = plan.config.subscriptions()
        self._sinks = [sink.name for sink in plan.config.all_sinks()]
        self.rules = WireRules(plan.config, plan.ingests)
        self.dropped = Dropped(logger)
        self.iggy = IggyConnection(plan.config.iggy)
        configured = stores(plan.config, self.iggy, logger)
        self._files = configured.get("file", [])
        self._topics = {store.name: store for store in configured.get("iggy", []) if isinstance(store, TopicStore)}
        context = zmq.asyncio.Context.instance()
        self.control = context.socket(zmq.DEALER)
        self.control.setsockopt(zmq.IDENTITY, b"dead-letter")
        self.control.setsockopt(zmq.SNDHWM, 0)
        endpoints = Endpoints(plan.folder, plan.config.network)
        endpoints.connect(self.control, endpoints.control)
        self._queue: asyncio.Queue[wire.StoreDeadLetters] = asyncio.Queue()
        self._backoff = Backoff(RETRY_SECONDS, 2.0, RETRY_MAX_SECONDS, lambda: 1.0)
        self._errors = RepeatFilter()
        self._failing = False

    async def run(self) -> None:
        """Keeps what it is told to until the process is killed."""
        await asyncio.gather(self._beat(), self._listen(), self._keep())

    async def _beat(self) -> None:
        startup_cpu = time.process_time()
        while True:
            await self._send(common.Heartbeat("dead-letter", os.getpid(), startup_cpu, self.dropped.count))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _send(self, message: Struct) -> None:
        await self.control.send_multipart(cut([common.encode(message)]))

    async def _listen(self) -> None:
        while True:
            try:
                message = wire.read_control(await self.control.recv_multipart())
            except wire.Malformed as error:
                self.dropped.drop("coordinator", str(error))
                continue
            if wrong := self.rules.control(message):
                self.dropped.drop("coordinator", wrong)
            elif isinstance(message, wire.StoreDeadLetters):
                self._queue.put_nowait(message)

    async def _keep(self) -> None:
        while True:
            burial = Burial(await self._queue.get())
            while True:
                try:
                    await self._bury(burial)
                    break
                except (IggyError, StoreError) as error:
                    await self._wait(error)
            if self._failing:
                self._failing = False
                self._backoff.reset()
                self.logger.info("dead letters are kept again")
                await self._send(common.Retrying(""))
            await self._send(wire.DeadLettersStored(burial.range))

    async def _wait(self, error: IggyError | StoreError) -> None:
        pause = self._backoff.next()
        self._failing = True
        await self._send(common.Retrying(f"dead letters can't be kept: {error}", paused=isinstance(error, StoreError)))
        if self._errors.allows(str(error), time.monotonic()):
            self.logger.error("dead letters can't be kept, nothing is lost, next try in %.1f s: %s", pause, error)
        await asyncio.sleep(pause)

    async def _bury(self, burial: Burial) -> None:
        """Raises IggyError or StoreError when it did not work; then nothing is confirmed, and it may be called again.
        """
        source = self.topics[burial.range.partition.topic]
        while burial.letters or burial.rest:
            if not burial.letters:
                await self._read(source, burial)
            for store in self._stores(source.stream):
                await store_letters(burial, store)
            burial.letters, burial.stored = [], {}

    def _stores(self, stream: str) -> list[DeadLetterStore]:
        """Where the letters of a stream's messages go."""
        name = f"{self.options.stream or stream}/{self.options.topic}"
        return [*self._files, *([self._topics[name]] if "iggy" in self.options.stores else [])]

    async def _read(self, source: Subscription, burial: Burial) -> None:
        """Makes the next letters of a burial, with their messages as far as Iggy still has them. Raises IggyError."""
        await self.iggy.ensure_connected()
        partition = burial.range.partition
        try:
            polled = await self.iggy.poll(source, partition.number, burial.rest[0].offset, burial.count())
        except IggyNotFound:
            if partition.number < await self.iggy.partitions(source.stream, source.topic):
                raise
            polled = []
        for reject, message in burial.take(polled):
            payload = message.payload() if message is not None else None
            burial.letters.append((self._letter(source, partition, reject, message), payload))

    def _letter(self, source: Subscription, partition: wire.Partition, reject: wire.Reject,
                message: ReceiveMessage | None) -> DeadLetter:
        """A letter without its payload."""
        return DeadLetter(
            time=datetime.now(UTC).isoformat(), stream=source.stream, topic=source.topic, partition=partition.number,
            offset=reject.offset, sink=self._sinks[source.sink],
            iggy_timestamp=message.timestamp() if message is not None else 0,
            origin_timestamp=message.origin_timestamp() if message is not None else 0,
            headers=headers_of(message) if message is not None else {},
            stage=reject.stage, reason=reject.reason, detail=reject.detail,
            pipeline_version=__version__, status=reject.status, attempts=reject.attempts, line=reject.line)


async def store_letters(burial: Burial, store: DeadLetterStore) -> None:
    """Stores what a store does not have yet of a burial's letters. Raises IggyError or StoreError."""
    while (done := burial.stored.get(store.name, 0)) < len(burial.letters):
        records: list[bytes] = []
        size = 0
        for letter, payload in burial.letters[done:done + SEND_RECORDS]:
            record = encode_letter(letter, payload, store.max_bytes)
            size += len(record)
            if records and size > min(SEND_BYTES, store.max_bytes):
                break
            records.append(record)
        await store.append(records)
        burial.stored[store.name] = done + len(records)


def run_dead_letter(plan: Plan, logger: logging.Logger) -> None:
    """Runs the stage until the process is killed."""
    asyncio.run(DeadLetterStage(plan, logger).run())
