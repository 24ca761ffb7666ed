"""Dead-letter: keeps the messages that can't be written, with all that is known of why, and only then confirms them.

The payload is read again from Iggy, which still has it: the source's offset is not stored before the confirmation.
"""

import asyncio
import base64
import logging
import os
import time
from datetime import UTC, datetime

import msgspec
import zmq
import zmq.asyncio
from apache_iggy import ReceiveMessage
from msgspec import Struct

from pipeline import __version__, wire
from pipeline.backoff import Backoff
from pipeline.control_link import HELLO_SECONDS
from pipeline.dead_letters import DeadLetter, Place, TopicPlace, places
from pipeline.endpoints import Endpoints
from pipeline.iggy import IggyConnection, IggyError
from pipeline.logs import Muffler
from pipeline.plan import Plan
from pipeline.schema import Subscription
from stages.reading.headers import headers_of

#: Messages asked for at once while reading payloads again.
MESSAGES_AT_ONCE = 1_000
#: Pauses between tries while the target or the source is away, seconds.
RETRY_SECONDS, RETRY_MAX_SECONDS = 0.5, 30.0


class DeadLetterStage:
    """One per pipeline. Duplicates are possible where a process died between keeping and confirming."""

    def __init__(self, plan: Plan, logger: logging.Logger) -> None:
        self.logger = logger
        self.options = plan.config.dead_letters
        self.topics = plan.config.subscriptions()
        self.iggy = IggyConnection(plan.config.iggy)
        self._files = places(plan.config, self.iggy).get("file", [])
        context = zmq.asyncio.Context.instance()
        self.control = context.socket(zmq.DEALER)
        self.control.setsockopt(zmq.IDENTITY, b"dead-letter")
        self.control.setsockopt(zmq.SNDHWM, 0)
        endpoints = Endpoints(plan.folder, plan.config.network)
        endpoints.connect(self.control, endpoints.control)
        self._queue: asyncio.Queue[wire.Bury] = asyncio.Queue()
        self._backoff = Backoff(RETRY_SECONDS, 2.0, RETRY_MAX_SECONDS, lambda: 1.0)
        self._errors = Muffler()
        self._failing = False

    async def run(self) -> None:
        """Keeps what it is told to until the process is killed."""
        await asyncio.gather(self._beat(), self._listen(), self._keep())

    async def _beat(self) -> None:
        startup_cpu = time.process_time()
        while True:
            await self._send(wire.Hello("dead-letter", os.getpid(), startup_cpu))
            await asyncio.sleep(HELLO_SECONDS)

    async def _send(self, message: Struct) -> None:
        await self.control.send(wire.encode(message))

    async def _listen(self) -> None:
        while True:
            message = wire.decode_control(await self.control.recv())
            if isinstance(message, wire.Bury):
                self._queue.put_nowait(message)

    async def _keep(self) -> None:
        while True:
            bury = await self._queue.get()
            while True:
                try:
                    await self._bury(bury)
                    break
                except (IggyError, OSError) as error:
                    await self._wait(error)
            if self._failing:
                self._failing = False
                self._backoff.reset()
                await self._send(wire.Retrying(""))
            await self._send(wire.Buried(bury.range))

    async def _wait(self, error: IggyError | OSError) -> None:
        pause = self._backoff.next()
        self._failing = True
        await self._send(wire.Retrying(f"dead letters can't be kept: {error}", paused=isinstance(error, OSError)))
        if self._errors.allows(str(error), time.monotonic()):
            self.logger.error("dead letters can't be kept, nothing is lost, next try in %.1f s: %s", pause, error)
        await asyncio.sleep(pause)

    async def _bury(self, bury: wire.Bury) -> None:
        """Raises IggyError or OSError when it did not work; then nothing is confirmed."""
        source = self.topics[bury.range.where.topic]
        messages = await self._messages(source, bury)
        letters = [self._letter(source, bury.range.where, reject, messages.get(reject.offset))
                   for reject in sorted(bury.rejects, key=lambda reject: reject.offset)]
        encoded = [msgspec.json.encode(letter) for letter in letters]
        for place in self._places(source.stream):
            await place.append(encoded)

    def _places(self, stream: str) -> list[Place]:
        """Where the letters of a stream's messages go."""
        topic = TopicPlace(self.iggy, self.options.stream or stream, self.options.topic)
        return [*self._files, *([topic] if "iggy" in self.options.to else [])]

    async def _messages(self, source: Subscription, bury: wire.Bury) -> dict[int, ReceiveMessage]:
        """The rejected messages by offset, as far as Iggy still has them."""
        await self.iggy.connected()
        wanted = {reject.offset for reject in bury.rejects}
        found: dict[int, ReceiveMessage] = {}
        while wanted:
            first = min(wanted)
            count = min(MESSAGES_AT_ONCE, max(wanted) - first + 1)
            polled = await self.iggy.poll(source, bury.range.where.partition, first, count)
            found.update((message.offset(), message) for message in polled if message.offset() in wanted)
            end = polled[-1].offset() if polled else first + count - 1
            wanted = {offset for offset in wanted if offset > end}
        return found

    def _letter(self, source: Subscription, where: wire.Partition, reject: wire.Reject,
                message: ReceiveMessage | None) -> DeadLetter:
        payload = message.payload() if message is not None else None
        text = _text(payload) if payload is not None else None
        return DeadLetter(
            time=datetime.now(UTC).isoformat(), stream=source.stream, topic=source.topic, partition=where.partition,
            offset=reject.offset, iggy_timestamp=message.timestamp() if message is not None else 0,
            origin_timestamp=message.origin_timestamp() if message is not None else 0,
            headers=headers_of(message) if message is not None else {},
            stage=reject.stage, reason=reject.reason, detail=reject.detail,
            pipeline_version=__version__, status=reject.status, attempts=reject.attempts, line=reject.line,
            payload=text,
            payload_base64=base64.b64encode(payload).decode() if payload is not None and text is None else None)


def _text(payload: bytes) -> str | None:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None


def run_dead_letter(plan: Plan, logger: logging.Logger) -> None:
    """Runs the stage until the process is killed."""
    asyncio.run(DeadLetterStage(plan, logger).run())
