"""A write job against any server: exactly the bad lines are refused, exactly the good ones stored."""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import compression
from stages.influxdb import body
from stages.influxdb.answers import Accepted, Answer, BadLines, OperatorNeeded, Retry, TooLarge, UnlocatedBadLines
from stages.write.doubt import MAX_BELIEVED_BATCHES, Evidence
from stages.write.job import WriteJob


class Server:
    """A database of one of the kinds that exist: how it answers bad lines, and what it stores then."""

    def __init__(self, kind: str, bad: set[int], failures: list[str], limit: int) -> None:
        self.kind = kind
        self.bad = {line(index) for index in bad}
        self.failures = deque(failures)
        self.limit = limit
        self.stored: set[bytes] = set()
        self.requests = 0

    def write(self, data: bytes) -> Answer:
        """One request."""
        self.requests += 1
        if self.failures:
            match self.failures.popleft():
                case "down":
                    return Retry("no_connection", "no connection")
                case "pause":
                    return OperatorNeeded("unauthorized", "401")
        if len(data) > self.limit:
            return TooLarge("413 too large")
        lines = data.removesuffix(b"\n").split(b"\n")
        bad = [index for index, text in enumerate(lines) if text in self.bad]
        good = set(lines) - self.bad
        if not bad:
            self.stored |= good
            return Accepted()
        if self.kind == "poison":
            return Retry("server_error", "500 internal error", suspect=True)
        if self.kind in ("v1", "v3", "conflict"):
            self.stored |= good
        named = "\n".join(f"unable to parse '{lines[index].decode()}': invalid boolean" for index in bad)
        match self.kind:
            case "v1":
                return BadLines(f"partial write: {named} dropped=0", rest_stored=True)
            case "v2":
                return BadLines(named)
            case "v3":
                listed = tuple((index + 1, lines[index].decode(), "bad") for index in bad)
                return BadLines("400 partial write", listed, rest_stored=True)
            case "conflict":
                return UnlocatedBadLines("type_conflict", "422 partial write", dropped=len(bad))
        return UnlocatedBadLines("refused", "400 no")


def line(index: int) -> bytes:
    """The text of a line."""
    return b"m,t=%d f=%d %d" % (index, index, index)


def run(job: WriteJob, server: Server, most: int = 3) -> None:
    """Sends the job's pieces, up to `most` of them at a time, until it is done."""
    passed = 0
    for _ in range(2_000):
        if job.done:
            return
        pieces = [piece for piece in (job.take() for _ in range(most)) if piece is not None]
        assert pieces
        for piece in pieces:
            answer = server.write(piece.body or b"")
            passed += not isinstance(answer, Retry | OperatorNeeded)
            job.answered(piece, answer, passed)
    raise AssertionError("the job does not end")


@given(st.sampled_from(["v1", "v2", "v3", "conflict", "unnamed", "poison"]), st.integers(2, 200), st.data(),
       st.lists(st.sampled_from(["down", "pause"]), max_size=5))
def test_exactly_the_bad_lines_are_refused(kind: str, count: int, data: st.DataObject, failures: list[str]) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=min(6, count - 1)))
    limit = data.draw(st.sampled_from([10**9, 500, 60]))
    server = Server(kind, bad, failures, limit)
    job = WriteJob(b"".join(line(index) + b"\n" for index in range(count)), count, gzip=False)
    run(job, server)
    assert {refused.line for refused in job.refused} == bad
    assert len(job.refused) == len(bad)
    assert server.stored == {line(index) for index in range(count)} - server.bad
    assert all(refused.text == line(refused.line).decode() for refused in job.refused)


@given(st.integers(1, 60), st.sets(st.integers(0, 59)))
def test_a_job_sent_again_stores_everything_but_the_refused_lines_again(count: int, bad: set[int]) -> None:
    bad &= set(range(count))
    server = Server("v2", bad, [], 10**9)
    job = WriteJob(compression.compress(b"".join(line(index) + b"\n" for index in range(count))), count, gzip=True)
    write = server.write
    server.write = lambda data: write(compression.decompress(data))  # type: ignore[method-assign]
    run(job, server)
    server.stored.clear()
    job.resend()
    run(job, server)
    assert server.stored == {line(index) for index in range(count)} - server.bad
    assert {refused.line for refused in job.refused} == bad


@settings(max_examples=20)
@given(st.integers(1, 3), st.data())
def test_bad_lines_cost_requests_by_number_and_logarithm_of_the_batch(
        number: int, data: st.DataObject) -> None:
    count = 5_000
    bad = data.draw(st.sets(st.integers(0, count - 1), min_size=number, max_size=number))
    server = Server("unnamed", bad, [], 10**9)
    run(WriteJob(b"".join(line(index) + b"\n" for index in range(count)), count, gzip=False), server)
    assert server.requests <= 2 * number * 14 + 1


def test_all_of_a_batch_refused_in_one_answer_costs_one_request() -> None:
    server = Server("conflict", set(range(5_000)), [], 10**9)
    job = WriteJob(b"".join(line(index) + b"\n" for index in range(5_000)), 5_000, gzip=False)
    run(job, server)
    assert server.requests == 1
    assert len(job.refused) == 5_000


def test_a_server_that_is_down_for_long_does_not_break_a_batch_into_crumbs() -> None:
    job = WriteJob(b"".join(line(index) + b"\n" for index in range(1_000)), 1_000, gzip=False)
    requests = 0
    for _ in range(200):
        piece = job.take()
        assert piece is not None
        requests += 1
        job.answered(piece, Retry("server_error", "500", suspect=True), acknowledged=0)
    server = Server("v2", set(), [], 10**9)
    run(job, server)
    assert server.requests <= 16


def test_lines_with_line_breaks_in_strings_are_found_again() -> None:
    lines = [b'm,t=a\\ b s="one\ntwo \\" three",f=1 1', b"m f=2 2", b'n s="\\\\" 3', b'a\\ b c="\n" 4']
    assert body.split_lines(b"".join(text + b"\n" for text in lines), len(lines)) == lines


def refuse_all(job: WriteJob, answer: Answer, requests: int = 40) -> list[Answer]:
    """Refuses every request of a job with one answer; what each meant."""
    meant: list[Answer] = []
    while not job.done and len(meant) < requests:
        piece = job.take()
        if piece is None:  # what it holds is known to be refused
            assert job.done
            break
        meant.append(job.answered(piece, answer, 0))
    return meant


SET_UP = [UnlocatedBadLines("refused", "400 the moon is in the wrong quarter", status=400), TooLarge("413", status=413),
          BadLines("unable to parse '\x1f\ufffd\x08': missing tag value", status=400)]


@given(st.sampled_from(SET_UP), st.integers(1, 300), st.sampled_from(["v1", "v2", "v3", "conflict", "unnamed"]),
       st.data())
def test_a_server_that_refuses_everything_for_a_while_costs_only_bad_lines(
        answer: Answer, count: int, kind: str, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=min(6, count - 1)))
    job = WriteJob(b"".join(line(index) + b"\n" for index in range(count)), count, gzip=False, evidence=Evidence())
    meant = refuse_all(job, answer)
    assert isinstance(meant[-1], OperatorNeeded)
    assert sum(not isinstance(one, OperatorNeeded) for one in meant) <= 9
    assert job.in_doubt and not job.delayed and not job.done and job.refused == []
    server = Server(kind, bad, [], 10**9)
    other = WriteJob(line(10_000) + b"\n", 1, gzip=False, evidence=job._evidence)
    run(other, server)
    run(job, server, most=1)
    assert {refused.line for refused in job.refused} == bad
    assert server.stored == ({line(index) for index in range(count)} | {line(10_000)}) - server.bad


@given(st.integers(1, 60), st.data())
def test_a_server_that_stores_most_lines_is_not_doubted_whatever_it_says(count: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=count // 2))
    server = Server("unnamed", bad, [], 10**9)
    job = WriteJob(b"".join(line(index) + b"\n" for index in range(count)), count, gzip=False, evidence=Evidence())
    run(job, server, most=data.draw(st.integers(1, 4)))
    assert {refused.line for refused in job.refused} == bad
    assert server.stored == {line(index) for index in range(count)} - server.bad


def test_batches_refused_line_by_line_are_believed_until_it_is_several() -> None:
    evidence = Evidence()
    for number in range(MAX_BELIEVED_BATCHES + 3):
        job = WriteJob(line(1) + b"\n" + line(2) + b"\n", 2, gzip=False, evidence=evidence)
        words = "\n".join(f"unable to parse '{line(index).decode()}': time outside range" for index in (1, 2))
        meant = refuse_all(job, BadLines(words, status=400))
        assert job.done == (number < MAX_BELIEVED_BATCHES)
        assert len(job.refused) == (2 if job.done else 0)
        assert isinstance(meant[-1], OperatorNeeded) != job.done
    conflict = WriteJob(line(1) + b"\n", 1, gzip=False, evidence=evidence)
    refuse_all(conflict, UnlocatedBadLines("type_conflict", "422", 1, about_lines=True))
    assert not conflict.done


def test_lines_older_than_the_retention_are_refused_however_many_there_are() -> None:
    evidence = Evidence()
    for number in range(20):
        job = WriteJob(line(1) + b"\n" + line(2) + b"\n", 2, gzip=False, evidence=evidence)
        meant = refuse_all(job, UnlocatedBadLines("outside_retention", "422", 2, about_lines=True))
        assert job.done and len(job.refused) == 2 and len(meant) == (number == 0)


def test_the_first_message_of_all_may_be_bad() -> None:
    for answer in (UnlocatedBadLines("refused", "400 cannot parse", about_lines=True),
                   BadLines(f"unable to parse '{line(1).decode()}': missing fields")):
        job = WriteJob(line(1) + b"\n", 1, gzip=False, evidence=Evidence())
        refuse_all(job, answer)
        assert job.done and len(job.refused) == 1
