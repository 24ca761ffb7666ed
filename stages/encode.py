"""Encode: turns a batch of payloads into the compressed body of one write request. CPU-bound; one process a core."""

import logging
import time
from typing import Any

import msgspec
import zmq
from isal import isal_zlib

from pipeline import wire
from pipeline.child import ControlLink, Plan
from pipeline.endpoints import Endpoints
from stages.mapping.encoder import BatchOrigin, Encoder

#: zlib's window bits for a gzip member.
GZIP_WINDOW_BITS = 31
#: isal's fastest level that still finds matches: 0.14 us a message at a ratio of 6.
GZIP_LEVEL = 1
#: How long one wait for a socket takes at most, milliseconds; between two the process says Hello.
POLL_MILLISECONDS = 1_000
#: Batches queued on either side, at most.
HIGH_WATER_MARK = 1


class EncodeStage:
    """One encoder process; takes batches from ingest as it gets free, gives lines to whichever writer has room."""

    def __init__(self, name: str, plan: Plan, logger: logging.Logger) -> None:
        self.logger = logger
        self.topics = plan.config.subscriptions()
        self.sinks = plan.config.all_sinks()
        self.encoders = [Encoder(self.sinks[topic.sink].mapping, self.sinks[topic.sink].influxdb.precision,
                                 topic.stream, topic.topic) for topic in self.topics]
        self._payloads = msgspec.msgpack.Decoder(list[bytes])
        endpoints = Endpoints(plan.folder)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.link = ControlLink(context, endpoints.control, name)
        self.pull = context.socket(zmq.PULL)
        self.pull.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        self.pull.connect(endpoints.batches)
        self.push = context.socket(zmq.PUSH)
        self.push.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        # Only to writers that are there: what is queued for a dead one would wait for its successor.
        self.push.setsockopt(zmq.IMMEDIATE, 1)
        for index in range(plan.writers):
            self.push.connect(endpoints.writer(index))

    def run(self) -> None:
        """Encodes until the process is killed."""
        while True:
            self.link.beat()
            if self.pull.poll(POLL_MILLISECONDS):
                head, bulk = self.pull.recv_multipart(copy=False)
                self._encode(wire.decode_batch(head.buffer), bulk.buffer)

    def _encode(self, batch: wire.Batch, bulk: Any) -> None:
        where = batch.range.where
        origin = BatchOrigin(where.partition, batch.first, batch.offsets, batch.timestamps, time.time_ns() // 1_000)
        encoded = self.encoders[where.topic].encode(self._payloads.decode(bulk), origin)
        rejects = [wire.Reject(origin.of(index).offset, reason, detail) for index, reason, detail in encoded.rejects]
        self.link.send(wire.Encoded(batch.range.messages, encoded.points))
        if not encoded.points:
            self.link.send(wire.Settled(batch.range, 0, 0, rejects))
            return
        gzip = self.sinks[self.topics[where.topic].sink].influxdb.gzip
        body = isal_zlib.compress(encoded.body, GZIP_LEVEL, GZIP_WINDOW_BITS) if gzip else encoded.body
        head = wire.encode(wire.Lines(batch.range, encoded.points, rejects))
        while not self.push.poll(POLL_MILLISECONDS, zmq.POLLOUT):
            self.link.beat()
        self.push.send_multipart([head, body], copy=False)
