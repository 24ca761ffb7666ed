"""Looks at partitions that are behind, and warns before Iggy's retention deletes messages that are not written."""

import asyncio
import logging
import time
from collections.abc import Mapping

from apache_iggy import IggyExpiry, MaxTopicSize

from pipeline.config.schema import Config
from pipeline.coordinator.ledger import Ledger
from pipeline.coordinator.message_ages import MessageAges
from pipeline.coordinator.retention import Look, Retention, overtaken_in, words
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError
from pipeline.iggy.topic_details import Details
from pipeline.log_formats import facts
from pipeline.subscriptions import Subscriptions
from pipeline.wire.sink import Partition

#: Seconds between two looks.
LOOK_SECONDS = 10.0
#: A partition is looked at when its oldest message that is not committed is older than this, seconds.
BEHIND_SECONDS = 30.0
#: Partitions that are looked at each time, at most: those with the oldest messages.
MOST_PARTITIONS = 20
#: A warning about a partition is repeated after this time, seconds.
REPEAT_SECONDS = 600.0


class RetentionWatch:
    """Part of the coordinator. It only reads, and a failure of Iggy is none of its own: others report that."""

    def __init__(self, config: Config, topics: Subscriptions, ledger: Ledger, ends: Mapping[Partition, int],
                 ages: MessageAges, logger: logging.Logger) -> None:
        """`ends`: last offset of each log."""
        self._topics = topics
        self._ledger = ledger
        self._ends = ends
        self._ages = ages
        self._logger = logger
        self._iggy = IggyConnection(config.iggy)
        #: The last look at each partition that is behind, and the forecast of it.
        self._looks: dict[Partition, Look] = {}
        self._forecasts: dict[Partition, float] = {}
        self._warned: dict[Partition, float] = {}

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except IggyError:
                continue

    def first(self, partition: Partition) -> int:
        """Offset of the oldest message in the log of a partition that is behind; -1: not known."""
        look = self._looks.get(partition)
        return look.first if look is not None else -1

    def oldest(self, partition: Partition) -> int:
        """Iggy's time of the oldest message that is not committed, of a partition that is behind, microseconds since
        1970; 0: not known."""
        look = self._looks.get(partition)
        return look.oldest if look is not None else 0

    def overtaken_in(self, partition: Partition) -> float:
        """Seconds until messages that are not committed may be deleted; -1: not expected, or not known."""
        return self._forecasts.get(partition, -1.0)

    async def look(self) -> None:
        """Looks at the partitions that are behind. Raises IggyError."""
        behind = self._behind(time.time())
        self._forget_others(behind)
        if not behind:
            return
        await self._iggy.ensure_connected()
        known: dict[int, Details] = {}
        for partition in behind[:MOST_PARTITIONS]:
            if partition.topic not in known:
                known[partition.topic] = await self._iggy.topic(self._topics[partition.topic])
            retention = retention_of(known[partition.topic])
            look = await self._look_at(partition, getattr(known[partition.topic], "size", 0))
            if look is None:
                continue
            forecast = overtaken_in(retention, self._looks.get(partition), look)
            self._looks[partition] = look
            self._forecasts[partition] = -1.0 if forecast is None else forecast
            if forecast is not None and forecast < retention.warn_seconds:
                self._warn(partition, look, retention, forecast)

    def _forget_others(self, behind: list[Partition]) -> None:
        """Forgets what was known of partitions that are not behind any more."""
        looked_at, all_behind = set(behind[:MOST_PARTITIONS]), set(behind)
        for table in (self._looks, self._forecasts):
            for partition in [one for one in table if one not in looked_at]:
                del table[partition]
        for partition in [one for one in self._warned if one not in all_behind]:
            del self._warned[partition]
            self._logger.info("%s is no longer behind", self._label(partition))

    def _behind(self, now: float) -> list[Partition]:
        """The partitions that are behind, those with the oldest messages first."""
        found = []
        for partition, _ in self._ledger.positions():
            committed = self._ledger.committed(partition)
            if self._ends.get(partition, -1) > committed and partition.topic in self._topics:
                oldest = self._ages.oldest(partition, committed)
                if not oldest or now - oldest / 1e6 > BEHIND_SECONDS:
                    found.append((oldest, partition.topic, partition.number, partition))
        return [partition for *_, partition in sorted(found)]

    async def _look_at(self, partition: Partition, size: int) -> Look | None:
        topic, committed = self._topics[partition.topic], self._ledger.committed(partition)
        first = await self._iggy.first(topic, partition.number)
        waiting = await self._iggy.poll(topic, partition.number, committed + 1, 1)
        if first is None or not waiting:
            return None
        oldest = waiting[0].timestamp()
        age = max(0.0, time.time() - oldest / 1e6)
        return Look(time.monotonic(), first.offset(), committed, self._ends.get(partition, -1), age, size, oldest)

    def _warn(self, partition: Partition, look: Look, retention: Retention, forecast: float) -> None:
        now = time.monotonic()
        if now - self._warned.get(partition, float("-inf")) < REPEAT_SECONDS:
            return
        self._warned[partition] = now
        limits = [f"its message_expiry is {words(retention.expiry)}" if retention.expiry is not None else "",
                  f"its max_topic_size {retention.bytes:,} bytes" if retention.bytes is not None else ""]
        topic = ", ".join(filter(None, limits)) or "it has no limits"
        remedy = "give the topic more, or the pipeline what it waits for, or more encoders and writers"
        if look.first > look.committed + 1:
            self._logger.error("%s: Iggy has deleted messages that were not written: its log begins at offset %d, and "
                               "offset %d is the last one that is committed (%s); %s", self._label(partition),
                               look.first, look.committed, topic, remedy, extra=self._facts(partition, look))
        else:
            self._logger.warning(
                "%s: in about %s Iggy may delete messages before they are written: the oldest one that is not is %s "
                "old (%s); %s", self._label(partition), words(forecast), words(look.age), topic, remedy,
                extra=self._facts(partition, look))

    def _facts(self, partition: Partition, look: Look) -> dict[str, dict[str, str | int]]:
        topic = self._topics[partition.topic]
        return facts(stream=topic.stream, topic=topic.topic, partition=partition.number, offset=look.committed)

    def _label(self, partition: Partition) -> str:
        return self._topics[partition.topic].label(partition.number) if partition.topic in self._topics \
            else f"partition {partition.number}"


def retention_of(details: Details) -> Retention:
    """The retention in a topic's details; no limits where the user may not see them."""
    expiry, size = getattr(details, "message_expiry", None), getattr(details, "max_topic_size", None)
    return Retention(expiry.duration.total_seconds() if isinstance(expiry, IggyExpiry.ExpireDuration) else None,
                     size.bytes if isinstance(size, MaxTopicSize.Custom) else None)
