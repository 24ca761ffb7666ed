"""The position of ingest in one partition, and its buffer. Pure, except for the client's message objects."""

from bisect import bisect_left

from apache_iggy import ReceiveMessage

from pipeline.wire import sink as wire

#: A poll that returns less than this part of what it requests has reached the end of the log.
FEW = 4
#: Of the time in which a batch is expected to become full, so much passes until the poll for its rest.
FILL_MARGIN = 1.1
#: Shortest pause at the end of a log, seconds.
MIN_PAUSE_SECONDS = 0.005
#: Messages requested in the first poll of a partition, while their size is not known.
FIRST_POLL_MESSAGES = 500


class PartitionReader:
    """The position in one partition, and the messages that were polled and are not dispatched yet."""

    def __init__(self, partition: wire.Partition, position: int) -> None:
        self.partition = partition
        #: Next offset to poll.
        self.position = position
        #: Generation of the log; -1 until the coordinator has sent the position to read from.
        self.generation = -1
        #: First offset that is not read; None: no limit.
        self.limit: int | None = None
        #: Iggy's time of the message before `position`, and of the newest message read: microseconds since 1970; 0
        #: where it is not known.
        self.last_time = self.newest_time = 0
        #: When the partition was created, in Iggy's time; 0 where it is not known.
        self.created_at = 0
        #: Nothing was read yet and no offset was stored: offsets missing at the beginning of the log are no loss.
        self.fresh = False
        #: The topic is missing at present.
        self.is_missing = False
        #: An operator has paused it.
        self.is_paused = False
        #: Batches are cut at their edges; quarantined messages are not sent to an encoder.
        self.suspects: list[wire.Suspect] = []
        self.messages: list[ReceiveMessage] = []
        self.payloads: list[bytes] = []
        self.bytes = 0
        #: When the oldest message in the buffer was sent at the earliest; seconds, monotonic.
        self.oldest_at = 0.0
        #: Whether the buffer is to be dispatched although it is not full.
        self.flush = False
        #: Not polled before this; seconds, monotonic; infinity: not before the next round.
        self.due_at = 0.0
        #: When the last poll was started; seconds, monotonic.
        self.polled_at = 0.0
        #: Whether the last poll, or look at the log's end, has found messages.
        self.had_news = False
        #: Whether the last poll has reached the end of the log.
        self.at_end = False
        #: When the end was last reached; seconds, monotonic; 0 before; and the messages polled since.
        self._end_at = 0.0
        self._arrived = 0
        #: Messages requested by the last poll.
        self.requested = 0
        #: Mean payload size, bytes; 0 when unknown.
        self.mean_bytes = 0.0

    def seek(self, position: wire.Position) -> None:
        """Moves to a position that the coordinator has sent, and discards the buffer."""
        self.generation, self.position, self.limit = position.generation, position.offset, position.limit
        self.suspects = position.suspects
        self.newest_time = max(self.newest_time, position.time)
        self.last_time = position.time if position.exact else 0
        self._clear()
        self.due_at, self.at_end = 0.0, False

    def _clear(self) -> None:
        self.messages, self.payloads, self.bytes, self.flush = [], [], 0, False

    def successor(self, position: int) -> "PartitionReader":
        """A reader of the log that has replaced this one's. It waits for the position from the coordinator."""
        reader = PartitionReader(self.partition, position)
        reader.created_at, reader.newest_time, reader.limit = self.created_at, self.newest_time, self.limit
        reader.mean_bytes = self.mean_bytes
        return reader

    @property
    def at_limit(self) -> bool:
        """Whether every message before the limit was polled."""
        return self.limit is not None and self.position >= self.limit

    @property
    def readable(self) -> bool:
        """Whether the partition may be polled."""
        return self.generation >= 0 and not self.is_missing and not self.at_limit and not self.is_paused

    def add(self, messages: list[ReceiveMessage], now: float) -> tuple[int, int] | None:
        """Adds the messages of a poll. Returns the first and last offset that are missing in the log before them.

        `now` in seconds, monotonic.
        """
        gap = None
        if messages:
            first = messages[0].offset()
            gap = (self.position, first - 1) if first > self.position and not self.fresh else None
            self.fresh = False
            if not self.messages:
                self.oldest_at = self._end_at if self.at_end else now
            payloads = [message.payload() for message in messages]
            size = sum(map(len, payloads))
            self.mean_bytes = size / len(payloads)
            self.messages += messages
            self.payloads += payloads
            self.bytes += size
            self._arrived += len(messages)
            self.position = messages[-1].offset() + 1
            self.last_time = messages[-1].timestamp()
            self.newest_time = max(self.newest_time, self.last_time)
        self.had_news = bool(messages)
        self.at_end = len(messages) * FEW < self.requested or not messages
        self.due_at = 0.0
        return gap

    def wait(self, now: float, batch_messages: int, max_bytes: int) -> None:
        """At the end of the log at `now` (seconds, monotonic): the next poll waits until a batch may be full.

        That is estimated from the messages that came since the end was last reached.
        """
        self.due_at = float("inf")
        if self._arrived and self._end_at:
            rest = self.poll_size(batch_messages, max_bytes) / self._arrived * (now - self._end_at)
            self.due_at = now + max(MIN_PAUSE_SECONDS, FILL_MARGIN * rest)
        self._end_at, self._arrived = now, 0

    def is_full(self, batch_messages: int, max_bytes: int) -> bool:
        """Whether the buffer holds a whole batch."""
        return len(self.messages) >= batch_messages or self.bytes >= max_bytes

    def poll_size(self, batch_messages: int, max_bytes: int) -> int:
        """Messages to request: what is missing for a batch, within its bytes and the limit."""
        room = batch_messages - len(self.messages)
        if self.limit is not None:
            room = min(room, self.limit - self.position)
        if not self.mean_bytes:
            return min(room, FIRST_POLL_MESSAGES)
        return max(1, min(room, int((max_bytes - self.bytes) / max(self.mean_bytes, 1.0))))

    def take_batch(self, batch_messages: int, max_bytes: int) -> tuple[list[ReceiveMessage], list[bytes]]:
        """Removes the next batch from the buffer: at most `batch_messages` and `max_bytes`, at least one message."""
        count = min(batch_messages, self._up_to_an_edge() if self.suspects else len(self.payloads))
        if self.bytes > max_bytes:
            size = 0
            for index in range(count):
                size += len(self.payloads[index])
                if size > max_bytes and index:
                    count = index
                    break
        if count == len(self.payloads):
            whole = self.messages, self.payloads
            self._clear()
            return whole
        messages, payloads = self.messages[:count], self.payloads[:count]
        self.messages, self.payloads = self.messages[count:], self.payloads[count:]
        self.bytes -= sum(map(len, payloads))
        return messages, payloads

    def _up_to_an_edge(self) -> int:
        """The number of messages in the buffer before the next edge of a suspect."""
        first = self.messages[0].offset()
        edge = min((edge for one in self.suspects for edge in (one.first, one.last + 1) if edge > first), default=None)
        if edge is None:
            self.suspects = []
            return len(self.messages)
        return bisect_left(self.messages, edge, key=lambda message: message.offset())

    @property
    def is_quarantined(self) -> bool:
        """Whether the first message of the buffer is quarantined: it is not sent to an encoder."""
        return bool(self.suspects) and any(one.quarantined and one.first == self.messages[0].offset()
                                           for one in self.suspects)

    def stop_at(self, offset: int) -> None:
        """Sets the limit to `offset`, and discards the buffer."""
        self.limit = self.position = offset
        self._clear()
