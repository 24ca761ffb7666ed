"""Where ingest stands in one partition. Pure, but for the client's message objects."""

from bisect import bisect_left

from apache_iggy import ReceiveMessage

from pipeline.wire import sink as wire

#: Pause after an empty poll, seconds: from the first to the longest, growing by the factor.
EMPTY_PAUSE_SECONDS = 0.005
EMPTY_PAUSE_MAX_SECONDS = 0.1
EMPTY_PAUSE_FACTOR = 1.5
#: A poll that gives less than the FEWth part of what it asks for has met the log's end: the next one waits, too, so
#: that a trickle of messages isn't read one by one.
FEW = 4
#: Messages asked for in the first poll of a partition, while their size isn't known.
FIRST_POLL_MESSAGES = 500


class PartitionReader:
    """Where ingest stands in one partition, and the messages polled that aren't a batch yet."""

    def __init__(self, where: wire.Partition, position: int) -> None:
        self.where = where
        #: Next offset to poll.
        self.position = position
        #: Incarnation of the log; -1 while the coordinator hasn't said yet where to read.
        self.log = -1
        #: Not beyond this offset; None: no limit.
        self.limit: int | None = None
        #: Iggy's time of the message before `position`, and of the newest message read: microseconds since 1970; 0
        #: where it isn't known.
        self.time = self.newest = 0
        #: When the partition was made, as Iggy has it; 0 where it isn't known.
        self.created_at = 0
        #: Nothing was read yet, and nothing was stored: what the log lacks at its beginning was never ours.
        self.fresh = False
        #: The topic is missing at present.
        self.away = False
        #: Batches are cut at their edges, and those that are cornered go to no encoder.
        self.suspects: list[wire.Suspect] = []
        self.messages: list[ReceiveMessage] = []
        self.payloads: list[bytes] = []
        self.bytes = 0
        #: When the oldest message in the buffer came; seconds, monotonic.
        self.since = 0.0
        #: Not polled before this; seconds, monotonic.
        self.due_at = 0.0
        self.pause = EMPTY_PAUSE_SECONDS
        #: How many messages the poll that is under way asks for.
        self.asked = 0
        #: Mean payload size, bytes, 0 when unknown.
        self.mean_bytes = 0.0

    def seek(self, position: wire.Position) -> None:
        """Goes where the coordinator says; forgets what is in the buffer."""
        self.log, self.position, self.limit = position.log, position.offset, position.limit
        self.suspects = position.suspects
        self.newest = max(self.newest, position.time)
        self.time = position.time if position.exact else 0
        self.messages, self.payloads, self.bytes = [], [], 0
        self.due_at, self.pause = 0.0, EMPTY_PAUSE_SECONDS

    def successor(self, position: int) -> "PartitionReader":
        """One for the log that has taken the place of this one's; it waits for the coordinator's word."""
        reader = PartitionReader(self.where, position)
        reader.created_at, reader.newest, reader.limit = self.created_at, self.newest, self.limit
        reader.mean_bytes = self.mean_bytes
        return reader

    @property
    def done(self) -> bool:
        """Whether all up to the limit is polled."""
        return self.limit is not None and self.position >= self.limit

    @property
    def readable(self) -> bool:
        """Whether it may be polled."""
        return self.log >= 0 and not self.away and not self.done

    def add(self, messages: list[ReceiveMessage], now: float) -> tuple[int, int] | None:
        """Takes the answer of a poll. Returns the first and last offset that the log lacks before it, if any."""
        if not messages:
            self.due_at = now + self.pause
            self.pause = min(self.pause * EMPTY_PAUSE_FACTOR, EMPTY_PAUSE_MAX_SECONDS)
            return None
        first = messages[0].offset()
        gap = (self.position, first - 1) if first > self.position and not self.fresh else None
        self.fresh = False
        self.pause = EMPTY_PAUSE_SECONDS
        if len(messages) * FEW < self.asked:
            self.due_at = now + self.pause
        if not self.messages:
            self.since = now
        payloads = [message.payload() for message in messages]
        size = sum(map(len, payloads))
        self.mean_bytes = size / len(payloads)
        self.messages += messages
        self.payloads += payloads
        self.bytes += size
        self.position = messages[-1].offset() + 1
        self.time = messages[-1].timestamp()
        self.newest = max(self.newest, self.time)
        return gap

    def wanted(self, batch_size: int, max_bytes: int) -> int:
        """How many messages to ask for: what the batch lacks, within its bytes and the limit."""
        room = batch_size - len(self.messages)
        if self.limit is not None:
            room = min(room, self.limit - self.position)
        if not self.mean_bytes:
            return min(room, FIRST_POLL_MESSAGES)
        return max(1, min(room, int((max_bytes - self.bytes) / max(self.mean_bytes, 1.0))))

    def cut(self, batch_size: int, max_bytes: int) -> tuple[list[ReceiveMessage], list[bytes]]:
        """Takes the next batch out of the buffer: at most `batch_size` messages and `max_bytes`, but at least one."""
        count = min(batch_size, self._up_to_an_edge() if self.suspects else len(self.payloads))
        if self.bytes > max_bytes:
            size = 0
            for index in range(count):
                size += len(self.payloads[index])
                if size > max_bytes and index:
                    count = index
                    break
        if count == len(self.payloads):
            whole = self.messages, self.payloads
            self.messages, self.payloads, self.bytes = [], [], 0
            return whole
        messages, payloads = self.messages[:count], self.payloads[:count]
        self.messages, self.payloads = self.messages[count:], self.payloads[count:]
        self.bytes -= sum(map(len, payloads))
        return messages, payloads

    def _up_to_an_edge(self) -> int:
        """How many messages of the buffer come before the next edge of a suspect."""
        first = self.messages[0].offset()
        edge = min((edge for one in self.suspects for edge in (one.first, one.last + 1) if edge > first), default=None)
        if edge is None:
            self.suspects = []
            return len(self.messages)
        return bisect_left(self.messages, edge, key=lambda message: message.offset())

    def is_quarantined(self, offset: int) -> bool:
        """Whether a message goes to no encoder."""
        return any(one.cornered and one.first == offset for one in self.suspects)

    def stop_at(self, offset: int) -> None:
        """Nothing from `offset` on is wanted."""
        self.limit = self.position = offset
        self.messages, self.payloads, self.bytes = [], [], 0
