"""Whatever is answered in whatever order, an older value never stays in place of a newer one."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stages.write.ordering import Entry, WriteOrder


class WholeJob:
    """A job of one request, as much as a lane looks at."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.delayed = False
        self.done = False
        self.on_its_way = False

    def resend(self) -> None:
        """To be sent once more."""
        self.done = False


class LaneMachine(RuleBasedStateMachine):
    """All batches write the same series and time: the database keeps whichever was applied last."""

    def __init__(self) -> None:
        super().__init__()
        self.lane: WriteOrder[WholeJob] = WriteOrder()
        self.entries: list[Entry[WholeJob]] = []
        #: Number of the batch whose value the database holds, and the numbers that are over.
        self.stored = -1
        self.over: list[int] = []
        self.applied: set[int] = set()
        self.failed = False

    @rule()
    def arrives(self) -> None:
        """The next batch of the partition."""
        self.entries.append(self.lane.add({0: len(self.entries)}, WholeJob(len(self.entries))))

    @precondition(lambda self: any(not e.job.on_its_way and not e.job.done for e in self.lane.startable()))
    @rule(data=st.data())
    def starts(self, data: st.DataObject) -> None:
        """The writer sends the next request that it may."""
        ready = [e for e in self.lane.startable() if not e.job.on_its_way and not e.job.done]
        entry = data.draw(st.sampled_from(ready))
        entry.started = entry.job.on_its_way = True

    @precondition(lambda self: any(e.job.on_its_way for e in self.entries))
    @rule(data=st.data(), works=st.booleans())
    def is_answered(self, data: st.DataObject, works: bool) -> None:
        """A request is applied by the database and acknowledged, or fails."""
        entry = data.draw(st.sampled_from([e for e in self.entries if e.job.on_its_way]))
        entry.job.on_its_way = False
        if not works:
            entry.job.delayed = self.failed = True
            return
        self.stored = entry.job.number
        self.applied.add(entry.job.number)
        entry.job.done = True
        self.over += [job.number for job in self.lane.finished(entry)]

    @invariant()
    def batches_are_over_in_order_and_only_when_stored(self) -> None:
        """The coordinator hears of each batch once, in order."""
        assert self.over == list(range(len(self.over)))
        assert set(self.over) <= self.applied

    @invariant()
    def the_newest_value_stays_once_all_are_over(self) -> None:
        """Where a request failed, later batches have been written after it. (Without a failure, requests that were
        sent side by side are applied in the order in which the database took them.)"""
        if self.failed and self.over and len(self.over) == len(self.entries) and self._only_retries_reordered():
            assert self.stored == len(self.entries) - 1

    def _only_retries_reordered(self) -> bool:
        return all(entry.job.delayed for entry in self.entries)


TestLane = LaneMachine.TestCase


class SharedJobs(RuleBasedStateMachine):
    """Jobs of several partitions: in each partition, the database keeps whichever was applied last."""

    def __init__(self) -> None:
        super().__init__()
        self.order: WriteOrder[WholeJob] = WriteOrder()
        self.entries: list[Entry[WholeJob]] = []
        self.stored: dict[object, int] = {}
        self.over: list[int] = []
        self.failed = False

    @rule(partitions=st.sets(st.integers(0, 3), min_size=1))
    def arrives(self, partitions: set[int]) -> None:
        """The next job, with batches of some partitions."""
        number = len(self.entries)
        self.entries.append(self.order.add(dict.fromkeys(sorted(partitions), number), WholeJob(number)))

    @rule(data=st.data())
    def starts(self, data: st.DataObject) -> None:
        """The writer sends a request that it may, if there is one."""
        ready = [e for e in self.order.startable() if not e.job.on_its_way and not e.job.done]
        if ready:
            entry = data.draw(st.sampled_from(ready))
            entry.started = entry.job.on_its_way = True
            self.order.served(entry)

    @precondition(lambda self: any(e.job.on_its_way for e in self.entries))
    @rule(data=st.data(), works=st.booleans())
    def is_answered(self, data: st.DataObject, works: bool) -> None:
        """A request is applied by the database and acknowledged, or fails."""
        self.answer(data.draw(st.sampled_from([e for e in self.entries if e.job.on_its_way])), works)

    def answer(self, entry: Entry[WholeJob], works: bool) -> None:
        """The answer to one request."""
        entry.job.on_its_way = False
        if not works:
            entry.job.delayed = self.failed = True
            return
        self.stored.update(dict.fromkeys(entry.places, entry.job.number))
        entry.job.done = True
        self.over += [job.number for job in self.order.finished(entry)]

    @invariant()
    def jobs_are_over_once_and_in_the_order_of_each_partition(self) -> None:
        """A job is settled when all older ones of its partitions are."""
        assert len(set(self.over)) == len(self.over)
        for partition in range(4):
            over = [number for number in self.over if partition in self.entries[number].places]
            all_ = [entry.job.number for entry in self.entries if partition in entry.places]
            assert over == all_[:len(over)]

    def teardown(self) -> None:
        """Once the database works, all jobs are over; after a retry the newest value of each partition is stored."""
        while waiting := [e for e in self.entries if e.job.on_its_way] or [
                e for e in self.order.startable() if not e.job.done]:
            waiting[0].started = True
            self.answer(waiting[0], works=True)
        assert sorted(self.over) == list(range(len(self.entries))) and not self.order
        if all(entry.job.delayed for entry in self.entries):
            for partition, number in self.stored.items():
                assert number == max(e.job.number for e in self.entries if partition in e.places)


TestSharedJobs = SharedJobs.TestCase


def test_a_batch_stored_while_an_older_one_failed_is_written_again_after_it() -> None:
    lane: WriteOrder[WholeJob] = WriteOrder()
    first, second = lane.add({0: 0}, WholeJob(0)), lane.add({0: 1}, WholeJob(1))
    assert [entry.places[0] for entry in lane.startable()] == [0, 1]
    first.job.delayed = True
    second.job.done = True
    assert lane.finished(second) == []
    assert [entry.places[0] for entry in lane.startable()] == [0]
    first.job.done = True
    assert [job.number for job in lane.finished(first)] == [0]
    assert not second.job.done
    assert [entry.places[0] for entry in lane.startable()] == [1]
    second.job.done = True
    assert [job.number for job in lane.finished(second)] == [1]


def test_a_batch_on_its_way_while_an_older_retry_is_stored_is_written_again() -> None:
    lane: WriteOrder[WholeJob] = WriteOrder()
    first, second = lane.add({0: 0}, WholeJob(0)), lane.add({0: 1}, WholeJob(1))
    first.started = second.started = True
    first.job.delayed = True
    first.job.done = True
    assert [job.number for job in lane.finished(first)] == [0]
    second.job.done = True
    assert lane.finished(second) == []
    assert not second.job.done
    second.job.done = True
    assert [job.number for job in lane.finished(second)] == [1]


def test_later_batches_wait_behind_one_that_failed() -> None:
    lane: WriteOrder[WholeJob] = WriteOrder()
    lane.add({0: 0}, WholeJob(0)).job.delayed = True
    lane.add({0: 5}, WholeJob(1))
    assert [entry.places[0] for entry in lane.startable()] == [0]
