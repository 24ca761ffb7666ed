"""How far one ingest process may read beyond what is settled. Pure."""

from msgspec import Struct

from pipeline.wire import sink as wire


class Credit(Struct):
    """Totals since the epoch began: what was dispatched, and the totals up to which the coordinator allows it."""

    #: Messages that the coordinator grants beyond those settled.
    share: int
    dispatched_messages: int = 0
    dispatched_bytes: int = 0
    granted_messages: int = 0
    granted_bytes: int = 0

    @property
    def available(self) -> bool:
        """Whether another batch may be dispatched. It may exceed the granted total."""
        return self.dispatched_messages < self.granted_messages and self.dispatched_bytes < self.granted_bytes

    @property
    def nothing_in_flight(self) -> bool:
        """Whether the last grant was sent when everything dispatched was settled."""
        return self.granted_messages - self.share >= self.dispatched_messages

    def assign(self, assignment: wire.Assign) -> None:
        """A new epoch began, or a new coordinator: it has counted what was dispatched."""
        self.dispatched_messages = assignment.dispatched_messages
        self.dispatched_bytes = assignment.dispatched_bytes

    def grant(self, message: wire.Credit) -> None:
        """The coordinator has sent new totals."""
        self.granted_messages, self.granted_bytes = message.messages, message.bytes

    def spend(self, range_: wire.Range) -> None:
        """A range is dispatched."""
        self.dispatched_messages += range_.messages
        self.dispatched_bytes += range_.bytes
