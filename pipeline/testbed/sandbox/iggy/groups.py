"""Consumer groups: who owns which partition, and the hand-over when a member joins. Pure; time is passed in.

Source: `core/metadata/src/stm/consumer_group.rs` and `partition_reconciler.rs` of apache/iggy, server 0.9.0-edge.5.
A partition of which something was polled but not committed is handed over cooperatively: it stays with its old owner,
but nobody may poll it, until the old owner has committed all that it polled or the rebalancing timeout is over.
"""

import struct

from msgspec import Struct, field

from pipeline.testbed.sandbox.iggy import protocol


class Revocation(Struct, frozen=True):
    """A partition that moves from its owner to member `target`; `since` in seconds of the caller's clock."""

    partition: int
    target: int
    since: float


class Member(Struct):
    """One connection's membership."""

    id: int
    session: int
    partitions: list[int] = field(default_factory=list)
    pending: list[Revocation] = field(default_factory=list)

    def pollable(self) -> list[int]:
        """The partitions that it may poll: those it owns, without those that are moving to another member."""
        leaving = {revocation.partition for revocation in self.pending}
        return [partition for partition in self.partitions if partition not in leaving]


class Group:
    """A consumer group of one topic. `offsets` are the committed ones, by partition."""

    def __init__(self, id_: int, name: str) -> None:
        self.id = id_
        self.name = name
        #: Grows with every change of the assignment.
        self.generation = 0
        #: By member id, ascending; the lowest free id is taken.
        self.members: dict[int, Member] = {}
        self.offsets: dict[int, int] = {}
        #: Highest offset that was served to the group, by partition.
        self.polled: dict[int, int] = {}

    def member(self, session: int) -> Member | None:
        """The member of a session, or None."""
        return next((member for member in self.members.values() if member.session == session), None)

    def owns(self, session: int, partition: int) -> bool:
        """Whether the session may commit this partition."""
        member = self.member(session)
        return member is not None and partition in member.partitions

    def may_poll(self, session: int, partition: int) -> bool:
        """Whether the session may poll this partition."""
        member = self.member(session)
        return member is not None and partition in member.pollable()

    def served(self, partition: int, last: int) -> None:
        """Notes the last offset that a poll was given."""
        self.polled[partition] = max(last, self.polled.get(partition, last))

    def join(self, session: int, partitions: list[int], now: float) -> None:
        """Adds a member, unless it is one. Partitions that are not being processed move at once, the others later."""
        if self.member(session) is not None:
            return
        owned = {partition for member in self.members.values() for partition in member.partitions}
        in_flight = {partition for partition, last in self.polled.items()
                     if partition in owned and self.offsets.get(partition, -1) < last}
        self.polled = {partition: last for partition, last in self.polled.items() if partition in owned}
        free = next(number for number in range(len(self.members) + 1) if number not in self.members)
        self.members = dict(sorted({**self.members, free: Member(free, session)}.items()))
        self._rebalance_cooperatively(partitions, in_flight, now)

    def leave(self, session: int, partitions: list[int]) -> bool:
        """Removes a member; its partitions go to the others at once. False when it is none."""
        member = self.member(session)
        if member is None:
            return False
        del self.members[member.id]
        self.rebalance(partitions)
        return True

    def rebalance(self, partitions: list[int]) -> None:
        """Assigns all partitions again at once, and discards pending moves."""
        self.generation += 1
        for member in self.members.values():
            member.partitions, member.pending = [], []
        members = list(self.members.values())
        for number, partition in enumerate(partitions if members else []):
            members[number % len(members)].partitions.append(partition)

    def _rebalance_cooperatively(self, partitions: list[int], in_flight: set[int], now: float) -> None:
        self.generation += 1
        owned = {partition for member in self.members.values() for partition in member.partitions}
        idle = [member for member in self.members.values() if not member.partitions]
        for number, partition in enumerate(p for p in partitions if p not in owned):
            idle[number % len(idle)].partitions.append(partition)
        targets = {revocation.target for member in self.members.values() for revocation in member.pending}
        idle = [member for member in self.members.values() if not member.partitions and member.id not in targets]
        if not idle:
            return
        for number, (source, partition) in enumerate(self._excess(len(partitions))):
            target = idle[number % len(idle)]
            if partition in in_flight:
                source.pending.append(Revocation(partition, target.id, now))
            else:
                source.partitions.remove(partition)
                target.partitions.append(partition)

    def _excess(self, partition_count: int) -> list[tuple[Member, int]]:
        share, with_one_more = divmod(partition_count, len(self.members))
        excess: list[tuple[Member, int]] = []
        for member in self.members.values():
            pollable = member.pollable()
            allowed = share + 1 if with_one_more else share
            if len(pollable) > share:
                with_one_more = max(0, with_one_more - 1)
            over = max(0, len(pollable) - allowed)
            excess += [(member, partition) for partition in pollable[::-1][:over]]
        return excess

    def settle(self, now: float, timeout: float) -> None:
        """Completes every hand-over whose old owner has committed what it polled, or that is `timeout` s old."""
        for member in list(self.members.values()):
            for revocation in list(member.pending):
                polled = self.polled.get(revocation.partition)
                drained = polled is None or self.offsets.get(revocation.partition, -1) >= polled
                if drained or now - revocation.since >= timeout:
                    self._complete(member, revocation)

    def _complete(self, source: Member, revocation: Revocation) -> None:
        source.pending.remove(revocation)
        source.partitions.remove(revocation.partition)
        self.members[revocation.target].partitions.append(revocation.partition)
        self.generation += 1

    def summary(self, partition_count: int) -> bytes:
        """The group as in a list of groups."""
        return struct.pack("<III", self.id, partition_count, len(self.members)) + protocol.text(self.name)

    def details(self, partition_count: int) -> bytes:
        """The group with its members; a partition that is moving still belongs to its old owner."""
        return self.summary(partition_count) + b"".join(
            struct.pack(f"<II{len(member.partitions)}I", member.id, len(member.partitions), *member.partitions)
            for member in self.members.values())

    def assignment(self, session: int) -> bytes:
        """What a member may poll, with the generation; empty for a stranger."""
        member = self.member(session)
        if member is None:
            return b""
        pollable = member.pollable()
        return struct.pack(f"<QI{len(pollable)}I", self.generation, len(pollable), *pollable)
