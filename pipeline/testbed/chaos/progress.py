"""How long each partition of a topic stands still: messages wait in it, and its offset does not move."""

import asyncio
import threading
import time

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import Subscription
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError

#: Pause between two looks, seconds.
LOOK_SECONDS = 0.25


class StandstillClock:
    """Measures the standstills of one partition. Pure: the caller gives the time, seconds of any monotonic clock."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._committed = -1
        self._since: float | None = None

    def look(self, committed: int, last: int, now: float) -> None:
        """The offset that is committed, and that of the last message; -1: none."""
        if committed != self._committed or committed >= last:
            self._committed, self._since = committed, None
        if committed < last:
            self._since = now if self._since is None else self._since
            self.longest = max(self.longest, now - self._since)


class Progress:
    """Looks at the offsets of a consumer group, on a thread of its own, from `start` to `stop`."""

    def __init__(self, address: str, topic: Subscription, partitions: int) -> None:
        """`address` of Iggy, host:port."""
        self._address = address
        self._topic = topic
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._clocks = [StandstillClock() for _ in range(partitions)]
        #: Messages of the topic that are not committed, as seen last; None before the first look.
        self.lag: int | None = None
        self.looks = 0
        #: The partitions of each member, and those that wait, as seen last.
        self._members: list[list[int]] = []
        self._waiting: list[int] = []

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Ends, at the latest after this time."""
        self._stopping.set()
        self._thread.join(seconds)

    def longest(self) -> list[float]:
        """The longest standstill of each partition so far, seconds."""
        return [clock.longest for clock in self._clocks]

    def described(self) -> str:
        """Who has which partitions, and which of them wait, as seen last."""
        shares = "; ".join(",".join(map(str, share)) or "none" for share in self._members)
        return (f"partitions with waiting messages: {','.join(map(str, self._waiting)) or 'none'}; of the "
                f"{len(self._members)} members of the group one each has: {shares}")

    async def _run(self) -> None:
        iggy = IggyConnection(IggyConfig(address=self._address, call_timeout_ms=3_000))
        while not self._stopping.is_set():
            try:
                await iggy.ensure_connected()
                await self._look(iggy)
            except IggyError:
                pass
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, iggy: IggyConnection) -> None:
        details = await iggy.details(self._topic.stream, self._topic.topic)
        lag, waiting = 0, []
        for partition in details.partitions if details is not None else ():
            last = partition.current_offset if partition.messages_count else -1
            committed = await iggy.stored_offset(self._topic, partition.id)
            self._clocks[partition.id].look(committed, last, time.monotonic())
            lag += max(0, last - committed)
            if last > committed:
                waiting.append(partition.id)
        self._members = await iggy.members(self._topic)
        self.lag, self._waiting = lag, waiting
        self.looks += 1
