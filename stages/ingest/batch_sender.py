"""Sends batches to the encoders, with what each mapping needs of the messages."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import zmq
import zmq.asyncio
from apache_iggy import ReceiveMessage

from pipeline.config.schema import Config
from pipeline.iggy.headers import header_values
from pipeline.sockets.endpoints import Endpoints
from pipeline.subscriptions import Subscriptions
from pipeline.wire import payload_frame
from pipeline.wire import sink as wire
from pipeline.wire.frames import cut
from stages.ingest.message_times import times_of

#: Batches queued for an encoder, at most.
SEND_HIGH_WATER_MARK = 1


class PolledBatch(NamedTuple):
    """The messages of a range, and their payloads."""

    range: wire.Range
    messages: list[ReceiveMessage]
    payloads: list[bytes]


class BatchSender:
    """The PUSH socket of one ingest process. A send waits until an encoder has room.

    Where a mapping remembers what it has written (`MappingConfig.needs_order`), each partition has one encoder of this
    machine, with a socket of its own; a send waits for that one.
    """

    def __init__(self, index: int, config: Config, topics: Subscriptions, endpoints: Endpoints,
                 encoders: int = 1) -> None:
        """`index` is the number of the ingest process; `encoders` that of the encoders of this machine."""
        self._topics = topics
        self._mappings = mappings = [sink.mapping for sink in config.all_sinks()]
        #: By sink: whether the mapping uses Iggy's times of the messages, and the user headers that it needs.
        self._needs_timestamps = [mapping.needs_timestamps() for mapping in mappings]
        self._header_names = [mapping.header_names() for mapping in mappings]
        self._push = zmq.asyncio.Context.instance().socket(zmq.PUSH)
        self._push.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER_MARK)
        endpoints.bind_batches(self._push, index)
        #: By sink: whether a partition has one encoder.
        self._needs_order = [mapping.needs_order() for mapping in mappings]
        #: The sockets of single encoders, where they are needed.
        self._encoders: list[zmq.asyncio.Socket] = []
        for encoder in range(encoders if any(self._needs_order) else 0):
            push = zmq.asyncio.Context.instance().socket(zmq.PUSH)
            push.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER_MARK)
            endpoints.bind_batches_of(push, index, encoder)
            self._encoders.append(push)

    async def send(self, batches: Sequence[PolledBatch], redelivered: bool = False) -> None:
        """Sends batches to one encoder, or to those of their partitions. `redelivered`: their ranges are being
        delivered again."""
        by_socket: dict[zmq.asyncio.Socket, list[PolledBatch]] = {}
        for batch in batches:
            by_socket.setdefault(self._socket_of(batch.range.partition), []).append(batch)
        for push, some in by_socket.items():
            await self._send(push, some, redelivered)

    def _socket_of(self, partition: wire.Partition) -> zmq.asyncio.Socket:
        if not self._needs_order[self._topics[partition.topic].sink]:
            return self._push
        return self._encoders[(partition.topic + partition.number) % len(self._encoders)]

    async def _send(self, push: zmq.asyncio.Socket, batches: Sequence[PolledBatch], redelivered: bool) -> None:
        heads = [self._head(batch, redelivered) for batch in batches]
        payloads = [(payload_frame.joined(batch.payloads), payload_frame.lengths(batch.payloads)) for batch in batches]
        await push.send_multipart(cut(wire.batches_parts(heads, payloads)), copy=False)

    def _head(self, polled: PolledBatch, redelivered: bool) -> wire.Batch:
        range_, messages, _ = polled
        topic = range_.partition.topic
        sink = self._topics[topic].sink
        contiguous = messages[-1].offset() - messages[0].offset() + 1 == len(messages)
        timestamps = None
        if self._needs_timestamps[sink]:
            timestamps = times_of(messages, self._mappings[sink])
        names = self._header_names[sink]
        return wire.Batch(
            range_, first=messages[0].offset(),
            offsets=None if contiguous else [message.offset() for message in messages], timestamps=timestamps,
            headers=[header_values(message, names) for message in messages] if names else None,
            redelivered=redelivered, found=self._topics.definition(topic), sent_at=time.monotonic())
