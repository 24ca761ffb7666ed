"""The dead-letter process: stores messages that cannot be written, with the reasons, and then confirms them.

The payloads are read again from Iggy: the offset of a message is not committed before its dead letter is confirmed.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime

from apache_iggy import ReceiveMessage

from pipeline import __version__
from pipeline.backoff import Backoff
from pipeline.config.plan import Plan
from pipeline.config.schema import Subscription
from pipeline.dead_letters.letters import LETTER_VERSION, DeadLetter, encode_letter
from pipeline.dead_letters.stores import SEND_BYTES, SEND_RECORDS, DeadLetterStore, StoreError, TopicStore, stores
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError, IggyNotFound
from pipeline.iggy.headers import headers_of
from pipeline.logs import RepeatFilter
from pipeline.plan_updates import PlanUpdates
from pipeline.sockets.control_link import AsyncControlLink
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.sink_rules import WireRules
from pipeline.subscriptions import Subscriptions
from pipeline.wire import common
from pipeline.wire import sink as wire

#: Messages polled at once for their payloads, and their bytes, estimated by the batch's average.
MESSAGES_AT_ONCE, BYTES_AT_ONCE = 1_000, 8_000_000
#: Pauses between attempts while a store or Iggy is unavailable, seconds.
RETRY_SECONDS, RETRY_MAX_SECONDS = 0.5, 30.0


class RejectedBatch:
    """The rejects of one batch while their dead letters are made and stored. None is stored twice in one store."""

    def __init__(self, message: wire.StoreDeadLetters) -> None:
        self.range = message.range
        #: Rejects whose messages have not been read yet, in the order of their offsets.
        self.rest = sorted(message.rejects, key=lambda reject: reject.offset)
        #: Letters with their messages' payloads (None: deleted from Iggy), and how many of them each store has.
        self.letters: list[tuple[DeadLetter, bytes | None]] = []
        self.stored: dict[str, int] = {}
        #: The last poll returned the first message that it asked for.
        self.found = False

    def count(self) -> int:
        """How many messages to poll from the first of `rest` on: their bytes are bounded.

        A range is bounded by `pipeline.max_batch_bytes`, but messages after it are not, and a poll returns these when
        the range has expired. So the first message is polled alone. If it exists, all others do: Iggy deletes whole
        segments, the oldest first.
        """
        if not self.found:
            return 1
        average = self.range.bytes // max(1, self.range.messages)
        span = self.rest[-1].offset - self.rest[0].offset + 1
        return max(1, min(span, MESSAGES_AT_ONCE, BYTES_AT_ONCE // max(1, average)))

    def take(self, polled: list[ReceiveMessage]) -> list[tuple[wire.Reject, ReceiveMessage | None]]:
        """Takes the rejects that a poll has settled from `rest`, with their messages: all of them when it is empty."""
        self.found = bool(polled) and polled[0].offset() == self.rest[0].offset
        end = polled[-1].offset() if polled else self.rest[-1].offset
        found = {message.offset(): message for message in polled}
        if polled and not self.found:
            # The messages before these were deleted; the rejects among these are polled next.
            end = polled[0].offset() - 1
        decided = [reject for reject in self.rest if reject.offset <= end]
        self.rest = self.rest[len(decided):]
        return [(reject, found.get(reject.offset)) for reject in decided]


class DeadLetterStage:
    """One per pipeline. A dead letter may be stored twice when the process dies before it has confirmed it."""

    def __init__(self, name: str, plan: Plan, logger: logging.Logger) -> None:
        self.logger = logger
        self.options = plan.config.dead_letters
        self.topics = Subscriptions(plan.config)
        self._sinks = [sink.name for sink in plan.config.all_sinks()]
        self.iggy = IggyConnection(plan.config.iggy)
        configured = stores(plan.config, self.iggy, logger)
        self._files = configured.get("file", [])
        self._topics = {store.name: store for store in configured.get("iggy", []) if isinstance(store, TopicStore)}
        endpoints = Endpoints(plan.folder, plan.config.network)
        self.link = AsyncControlLink(endpoints, endpoints.control, name, wire.read_control,
                                     WireRules(plan.config, plan.ingests, self.topics).control)
        self._queue: asyncio.Queue[wire.StoreDeadLetters] = asyncio.Queue()
        self._backoff = Backoff(RETRY_SECONDS, 2.0, RETRY_MAX_SECONDS, lambda: 1.0)
        self._errors = RepeatFilter()
        self._failing = False

    async def run(self) -> None:
        """Stores dead letters until the process is killed."""
        await asyncio.gather(self.link.send_heartbeats(), self._receive(), self._store())

    async def _receive(self) -> None:
        while True:
            for message in await self.link.receive():
                if isinstance(message, wire.StoreDeadLetters):
                    self._queue.put_nowait(message)

    async def _store(self) -> None:
        while True:
            batch = RejectedBatch(await self._queue.get())
            while True:
                try:
                    await self._store_batch(batch)
                    break
                except (IggyError, StoreError) as error:
                    await self._wait(error)
            if self._failing:
                self._failing = False
                self._backoff.reset()
                self.logger.info("dead letters are stored again")
                self.link.send(common.Retrying(""))
            self.link.send(wire.DeadLettersStored(batch.range))

    async def _wait(self, error: IggyError | StoreError) -> None:
        pause = self._backoff.next()
        self._failing = True
        self.link.send(common.Retrying(f"dead letters cannot be stored: {error}", paused=isinstance(error, StoreError)))
        if self._errors.allows(str(error), time.monotonic()):
            self.logger.error("dead letters cannot be stored, nothing is lost, next try in %.1f s: %s%s", pause, error,
                              self._errors.times)
        await asyncio.sleep(pause)

    async def _store_batch(self, batch: RejectedBatch) -> None:
        """Makes and stores the dead letters of a batch. Raises IggyError or StoreError; then it may be called again."""
        subscription = self.topics[batch.range.partition.topic]
        while batch.letters or batch.rest:
            if not batch.letters:
                await self._read(subscription, batch)
            for store in self._stores(subscription.stream):
                await store_letters(batch, store)
            batch.letters, batch.stored = [], {}

    def _stores(self, stream: str) -> list[DeadLetterStore]:
        """The stores for the dead letters of a stream."""
        name = f"{self.options.stream or stream}/{self.options.topic}"
        return [*self._files, *([self._topics[name]] if "iggy" in self.options.stores else [])]

    async def _read(self, subscription: Subscription, batch: RejectedBatch) -> None:
        """Makes the next dead letters, with the messages as far as Iggy still has them. Raises IggyError."""
        await self.iggy.ensure_connected()
        partition = batch.range.partition
        try:
            polled = await self.iggy.poll(subscription, partition.number, batch.rest[0].offset, batch.count())
        except IggyNotFound:
            if partition.number < await self.iggy.partitions(subscription.stream, subscription.topic):
                raise
            polled = []
        for reject, message in batch.take(polled):
            payload = message.payload() if message is not None else None
            batch.letters.append((self._letter(subscription, partition, reject, message), payload))

    def _letter(self, subscription: Subscription, partition: wire.Partition, reject: wire.Reject,
                message: ReceiveMessage | None) -> DeadLetter:
        """A dead letter without its payload."""
        return DeadLetter(
            time=datetime.now(UTC).isoformat(), stream=subscription.stream, topic=subscription.topic,
            partition=partition.number,
            offset=reject.offset, sink=self._sinks[subscription.sink],
            iggy_timestamp=message.timestamp() if message is not None else 0,
            origin_timestamp=message.origin_timestamp() if message is not None else 0,
            headers=headers_of(message) if message is not None else {},
            stage=reject.stage, reason=reject.reason, detail=reject.detail,
            pipeline_version=__version__, version=LETTER_VERSION, status=reject.status, attempts=reject.attempts,
            line=reject.line)


async def store_letters(batch: RejectedBatch, store: DeadLetterStore) -> None:
    """Stores the dead letters of a batch that a store does not have yet. Raises IggyError or StoreError."""
    while (done := batch.stored.get(store.name, 0)) < len(batch.letters):
        records: list[bytes] = []
        size = 0
        for letter, payload in batch.letters[done:done + SEND_RECORDS]:
            record = encode_letter(letter, payload, store.max_bytes)
            size += len(record)
            if records and size > min(SEND_BYTES, store.max_bytes):
                break
            records.append(record)
        await store.append(records)
        batch.stored[store.name] = done + len(records)


def run(name: str, index: int, plan: Plan, logger: logging.Logger, _updates: PlanUpdates) -> None:
    """Runs the stage until the process is killed."""
    asyncio.run(DeadLetterStage(name, plan, logger).run())
