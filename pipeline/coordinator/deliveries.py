"""What becomes of dispatched ranges: settles them once their dead letters are stored, and redelivers what may be
lost."""

import logging
import time
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from pipeline.config.plan import Plan
from pipeline.coordinator.ledger import Ledger
from pipeline.coordinator.poison_tracker import PoisonTracker
from pipeline.coordinator.status import Counters
from pipeline.overwriting import overwriting_advice
from pipeline.reject_log import RejectLog
from pipeline.sockets.peers import Peers
from pipeline.subscriptions import Subscriptions
from pipeline.wire import sink as wire

#: Rejects that the Status has, and most of one batch among them.
LAST_REJECTS, REJECTS_OF_A_BATCH = 20, 5
#: Longest detail and line of a reject in the Status, characters.
SHOWN_CHARACTERS = 300


class Deliveries:
    """Part of the coordinator."""

    def __init__(self, plan: Plan, topics: Subscriptions, ledger: Ledger, poison: PoisonTracker, peers: Peers,
                 counters: Counters, send: Callable[[str, Struct], None], logger: logging.Logger,
                 finished: Callable[[wire.Settled, bool], None]) -> None:
        """`send` sends a message to a process by its name. `finished` is told of each batch that is settled for the
        first time, and whether its rejects were stored."""
        self._finished = finished
        self._config = plan.config
        self._topics = topics
        self._ingest_names = plan.ingest_names()
        self._ledger = ledger
        self._poison = poison
        self._peers = peers
        self._counters = counters
        self._send = send
        self._logger = logger
        self.rejects = RejectLog(logger)
        #: The last ones, for the Status; of each batch the first few.
        self.last_rejects: deque[wire.RejectStatus] = deque(maxlen=LAST_REJECTS)
        self._sinks = [sink.name for sink in plan.config.all_sinks()]
        #: Settled except for their dead letters.
        self._awaiting_dead_letters: dict[wire.Range, wire.Settled] = {}
        #: Ingest processes, by index, with ranges settled since their last Credit.
        self._credit_due: set[int] = set()
        #: No credit is granted before every process has started.
        self._is_open = False
        #: Topics for which the first overwritten points were logged.
        self._logged_overwriting: set[int] = set()

    def open(self) -> None:
        """Every process has started, so batches have somewhere to go: credit is granted from now on."""
        if not self._is_open:
            self._is_open = True
            self._credit_due.update(range(len(self._ingest_names)))

    def grant(self, ingest: int) -> None:
        """Sends an ingest process its credit: what is settled, and its share of the window beyond that."""
        self._credit_due.discard(ingest)
        if not self._is_open:
            return
        pipeline, load, share = self._config.pipeline, self._ledger.load(ingest), len(self._ingest_names)
        self._send(self._ingest_names[ingest], wire.Credit(
            self._ledger.epoch,
            load.dispatched_messages - load.in_flight_messages + pipeline.window_messages // share,
            load.dispatched_bytes - load.in_flight_bytes + pipeline.window_bytes // share))

    def owe_credit(self, ingest: int) -> None:
        """Less is in flight than an ingest process knows of: with the next credit it will."""
        self._credit_due.add(ingest)

    def grant_due(self) -> None:
        """Sends their credit to the ingest processes with ranges settled since the last one."""
        while self._credit_due:
            self.grant(self._credit_due.pop())

    def grant_all(self) -> None:
        """Sends every ingest process its credit."""
        for ingest in range(len(self._ingest_names)):
            self.grant(ingest)

    def settled(self, message: wire.Settled) -> None:
        """All messages of a range are written or rejected. It is settled once the dead letters are stored."""
        range_ = message.range
        if range_ in self._awaiting_dead_letters or range_.epoch != self._ledger.epoch:
            return
        if not self._ledger.knows(range_.partition):
            return  # the partition was assigned to another member
        if message.rejects and self._config.dead_letters.stores and not self._ledger.was_settled(range_):
            self._awaiting_dead_letters[range_] = message
            self._send("dead-letter", self._dead_letters_of(message))
        else:
            self._finish(message)

    def _dead_letters_of(self, settled: wire.Settled) -> wire.StoreDeadLetters:
        return wire.StoreDeadLetters(settled.range, settled.rejects,
                                     self._topics.definition(settled.range.partition.topic))

    def dead_letters_stored(self, range_: wire.Range) -> None:
        """The dead letters of a range are stored."""
        settled = self._awaiting_dead_letters.pop(range_, None)
        if settled is not None and range_.epoch == self._ledger.epoch:
            self._finish(settled)

    def send_dead_letters_again(self) -> None:
        """Sends the dead letters that are not stored to a new dead-letter process."""
        for settled in self._awaiting_dead_letters.values():
            self._send("dead-letter", self._dead_letters_of(settled))

    def awaits_dead_letters(self, range_: wire.Range) -> bool:
        """Whether a range is settled except for its dead letters."""
        return range_ in self._awaiting_dead_letters

    def forget_obsolete(self) -> None:
        """Forgets the dead letters of ranges that the ledger no longer holds. To be called when partitions change."""
        self._awaiting_dead_letters = {range_: settled for range_, settled in self._awaiting_dead_letters.items()
                                       if not self._ledger.is_settled(range_)}

    def _finish(self, message: wire.Settled) -> None:
        new = self._ledger.settle(message.range)
        self._credit_due.add(message.range.ingest)
        if not new:
            return
        self._counters.settled(message, time.monotonic())
        self._finished(message, bool(self._config.dead_letters.stores))
        if self._poison.quarantined(message.range) is None:
            self._poison.settled()
        topic = self._topics[message.range.partition.topic]
        self._log_overwriting(message.range.partition.topic, message.overwritten)
        for reject in message.rejects:
            self.rejects.add(topic.label(), f"partition {message.range.partition.number} offset {reject.offset}",
                             reject.reason, reject.detail, time.monotonic(), about={
                                 "sink": self._sinks[topic.sink], "stream": topic.stream, "topic": topic.topic,
                                 "partition": message.range.partition.number, "offset": reject.offset})
        self.last_rejects.extend(self._described(message.range, reject)
                                 for reject in message.rejects[:REJECTS_OF_A_BATCH])

    def _described(self, range_: wire.Range, reject: wire.Reject) -> wire.RejectStatus:
        topic = self._topics[range_.partition.topic]
        return wire.RejectStatus(
            time.time(), self._sinks[topic.sink], topic.stream, topic.topic, range_.partition.number, reject.offset,
            reject.reason, reject.detail[:SHOWN_CHARACTERS], reject.stage, reject.status,
            reject.line[:SHOWN_CHARACTERS])

    def _log_overwriting(self, topic: int, found: wire.Overwritten) -> None:
        """Logs the first overwritten points of a topic, with the remedy."""
        if found.points and topic not in self._logged_overwriting:
            self._logged_overwriting.add(topic)
            self._logger.warning("points overwrite others: %s; %s. Further ones are only counted", found.example,
                                 overwriting_advice(self._config.all_sinks()[self._topics[topic].sink]))

    def held_by(self, name: str) -> list[wire.Range]:
        """The ranges that may be lost with a process: those that an ingest process dispatched, else all unsettled."""
        unsettled = self._ledger.unsettled()
        if name not in self._ingest_names:
            return unsettled
        return [range_ for range_ in unsettled if range_.ingest == self._ingest_names.index(name)]

    def redeliver(self, ranges: list[wire.Range], reason: str, suspects: bool = True) -> None:
        """Has ranges that may be lost read again. Without `suspects`: except those that a process has died of."""
        ranges = [range_ for range_ in ranges if range_ not in self._awaiting_dead_letters
                  and self._ingest_names[range_.ingest] in self._peers.pids]
        ranges = self.settle_quarantined([range_ for range_ in self._ledger.reopen(ranges)
                                          if range_ not in self._awaiting_dead_letters])
        ranges = self._poison.to_send(ranges, self._peers.pids, suspects)
        if not ranges:
            return
        self._ledger.resent(ranges, time.monotonic())
        self._counters.redelivered += len(ranges)
        self._logger.warning("%s: reading %d batches in flight again", reason, len(ranges))
        for ingest, name in enumerate(self._ingest_names):
            if own := [range_ for range_ in ranges if range_.ingest == ingest]:
                self._send(name, wire.Redeliver(own))

    def settle_quarantined(self, ranges: list[wire.Range]) -> list[wire.Range]:
        """Settles the quarantined messages among ranges as dead letters. Returns the other ranges."""
        others = []
        for range_ in ranges:
            settled = self._poison.quarantined(range_)
            if settled is None:
                others.append(range_)
            else:
                self.settled(settled)
        return others
