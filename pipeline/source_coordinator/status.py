"""The counters of the source coordinator, and the Status made of them."""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from pipeline.sockets.peers import Peers
from pipeline.source_coordinator.source import Source
from pipeline.wire import source as source_wire


class SourceCounters(Struct):
    """Totals since the coordinator started."""

    rows: int = 0
    points: int = 0
    messages: int = 0
    sent_bytes: int = 0
    rejected: int = 0
    repeated: int = 0
    pages: int = 0
    redelivered: int = 0
    #: When the first page was ordered and the last one confirmed: seconds, CLOCK_MONOTONIC; 0 before.
    first_at: float = 0.0
    last_at: float = 0.0

    #: By the index of the source: as `source_wire.SourceTotals`, without the name.
    by_source: dict[int, Counter[str]] = {}

    def count(self, source: int, **more: int) -> None:
        """Counts something of one source."""
        self.by_source.setdefault(source, Counter()).update(more)

    def confirmed(self, message: source_wire.PageConfirmed, now: float) -> None:
        """Counts a page that Iggy has confirmed."""
        self.count(message.id.measurement.source, pages=1, points=message.points, messages=message.messages,
                   sent_bytes=message.size, rejected=message.rejected, repeated=message.repeated)
        self.last_at = now
        self.pages += 1
        self.points += message.points
        self.messages += message.messages
        self.sent_bytes += message.size
        self.rejected += message.rejected
        self.repeated += message.repeated

    def _totals(self, source: Source, now: float) -> source_wire.SourceTotals:
        share = source.share
        source.progress.add(share, now)
        left = source.progress.seconds_left(share, now)
        return source_wire.SourceTotals(source.config.name, **dict(self.by_source.get(source.index, Counter())),
                                        share=share, seconds_left=-1.0 if left is None else left)

    def status(self, epoch: int, sources: Sequence[Source], peers: Peers, stages: int, draining: bool, fatal: str,
               dropped: int, now: float) -> source_wire.SourceStatus:
        """The Status at `now`. `stages`: how many processes there are but the coordinator; `dropped`: messages that the
        coordinator has dropped."""
        running = [name for name in peers.pids if name != "supervisor"]
        all_stored = not fatal and all(source.changes == source.stored for source in sources)
        return source_wire.SourceStatus(
            epoch=epoch,
            ready=len(running) > stages and not peers.paused
            and bool(sources) and all(source.discovered or source.paused for source in sources),
            drained=draining and all_stored and not any(source.sending for source in sources),
            caught_up=bool(sources) and all(source.caught_up for source in sources),
            rows=self.rows, points=self.points, messages=self.messages, sent_bytes=self.sent_bytes,
            rejected=self.rejected, repeated=self.repeated, pages=self.pages, redelivered=self.redelivered,
            in_flight=sum(source.in_flight for source in sources), first_at=self.first_at, last_at=self.last_at,
            measurements=[source_wire.MeasurementStatus(source.config.name, name, ledger.watermark, len(ledger.pages),
                                                        ledger.share(source.goal), source.late[name].late)
                          for source in sources for name, ledger in sorted(source.ledgers.items())],
            totals=[self._totals(source, now) for source in sources],
            future=sum(sum(source.future.values()) for source in sources),
            refused={f"{source.config.name}: {name}": message
                     for source in sources for name, message in source.refused.items()},
            fatal=fatal, dropped=dropped + peers.dropped, **peers.status_fields(now))
