"""A write job and a database with a retention: what it takes is stored, all else refused, and soon without asking."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.influxdb.answers import Accepted, Answer, BadLines, UnlocatedBadLines
from stages.influxdb.retention import FORGET_SECONDS, RECHECK_SECONDS, SECOND, Bounds
from stages.write.doubt import Evidence
from stages.write.job import WriteJob

#: The server's time when the tests' clock says 0, seconds since 1970.
EPOCH = 1_700_000_000
BOUNDS = ("told", "told, nothing stored", "asked for", "unknown")


@dataclass
class Server:
    """A database that keeps lines for `kept` seconds, by a clock of its own."""

    kept: int
    #: What it tells of its bound: as BOUNDS.
    tells: str
    now: float = 0.0
    bad: frozenset[bytes] = frozenset()
    stored: set[bytes] = field(default_factory=set)
    requests: int = 0

    @property
    def oldest(self) -> int:
        """The oldest time that it takes, nanoseconds since 1970."""
        return int((EPOCH + self.now - self.kept) * SECOND)

    def write(self, data: bytes) -> Answer:
        """One request; times are in milliseconds."""
        self.requests += 1
        lines = data.removesuffix(b"\n").split(b"\n")
        late = [line for line in lines
                if line not in self.bad and int(line.rpartition(b" ")[2]) * 1_000_000 < self.oldest]
        if self.tells == "told, nothing stored":
            if late:
                return UnlocatedBadLines("outside_retention", "422", bounds=Bounds(self.oldest), about_lines=True)
            self.stored |= set(lines)
            return Accepted()
        self.stored |= set(lines) - set(late) - self.bad
        if late:  # and not a word about malformed lines
            bounds = None if self.tells == "unknown" else Bounds(self.oldest // SECOND * SECOND)
            return UnlocatedBadLines("outside_retention", "400", len(late), True, bounds)
        named = [line for line in lines if line in self.bad]
        if named:
            words = "\n".join(f"unable to parse '{line.decode()}': missing fields" for line in named)
            return BadLines(f"partial write: {words} dropped=0", rest_stored=True)
        return Accepted()


def run(server: Server, evidence: Evidence, ages: list[float], seconds: float = 0.0,
        first: int = 0) -> tuple[list[bytes], WriteJob]:
    """Writes lines that are so many seconds old, and returns them and their job; it takes `seconds` a request.

    The job is done, or, when nothing was ever stored, in doubt: it would try line after line until something is.
    """
    lines = [b"m,n=%d f=1 %d" % (first + n, (EPOCH + server.now - age) * 1_000) for n, age in enumerate(ages)]
    job = WriteJob(b"".join(line + b"\n" for line in lines), len(lines), False, evidence=evidence, unit=1_000_000)
    passed = 0
    while (piece := job.take(server.now)) is not None:
        answer = server.write(piece.body or b"")
        server.now += seconds
        passed += 1
        job.answered(piece, answer, passed, server.now)
        if job.in_doubt:
            assert not server.stored
            return lines, job
    assert job.done
    return lines, job


@given(st.sampled_from(BOUNDS), st.lists(st.lists(st.floats(0, 200), min_size=1, max_size=30), min_size=1, max_size=6),
       st.floats(0, 2), st.data())
def test_no_line_is_lost_and_none_that_is_taken_is_refused(tells: str, batches: list[list[float]], seconds: float,
                                                           data: st.DataObject) -> None:
    server, evidence = Server(100, tells), Evidence()
    for number, ages in enumerate(batches):
        began = server.oldest
        if tells != "told, nothing stored":
            server.bad = frozenset(b"m,n=%d f=1 %d" % (number * 100 + n, (EPOCH + server.now - ages[n]) * 1_000)
                                   for n in data.draw(st.sets(st.integers(0, len(ages) - 1), max_size=2)))
        lines, job = run(server, evidence, ages, seconds, number * 100)
        if job.in_doubt:
            return
        refused = {line.line: line for line in job.refused}
        assert len(refused) == len(job.refused)
        for index, line in enumerate(lines):
            time = int(line.rpartition(b" ")[2]) * 1_000_000
            assert index in refused or line in server.stored
            if index in refused and refused[index].reason == "outside_retention":
                assert time < server.oldest
            elif index in refused:
                assert line in server.bad
            else:
                assert time >= began


@pytest.mark.parametrize("tells", BOUNDS)
def test_once_a_bound_is_known_a_batch_takes_one_request(tells: str) -> None:
    server, evidence = Server(3_600, tells), Evidence()
    ages = [7_200.0 if n % 5 == 0 else 10.0 for n in range(1_000)]
    for batch in range(9):
        server.now, server.requests = batch / 2, 0
        _, job = run(server, evidence, ages, first=batch * 1_000)
        assert server.requests == 1 if batch else server.requests <= 3
        assert sorted(line.line for line in job.refused) == list(range(0, 1_000, 5))
        assert all(line.reason == "outside_retention" for line in job.refused)
        if batch:
            assert all(line.message.endswith("; not sent") for line in job.refused)
            assert all(line.status == line.attempts == 0 for line in job.refused)


@pytest.mark.parametrize("tells", BOUNDS)
def test_a_batch_of_which_every_line_is_too_old_needs_no_request(tells: str) -> None:
    server, evidence = Server(3_600, tells), Evidence()
    run(server, evidence, [4_000.0, 10.0])
    server.requests = 0
    _, job = run(server, evidence, [5_000.0] * 10)
    assert (server.requests, len(job.refused)) == (0, 10)


@pytest.mark.parametrize("tells", BOUNDS)
def test_a_longer_retention_is_seen_within_seconds(tells: str) -> None:
    server, evidence = Server(3_600, tells), Evidence()
    run(server, evidence, [7_200.0, 10.0])
    server.kept = 10_000
    server.now = RECHECK_SECONDS
    for more in range(3):
        lines, job = run(server, evidence, [7_200.0, 9_000.0, 11_000.0, 10.0], first=more * 10)
        assert [line.line for line in job.refused] == [2]
        assert server.stored >= {lines[0], lines[1], lines[3]}


@pytest.mark.parametrize("tells", BOUNDS)
def test_a_shorter_retention_is_learned_anew(tells: str) -> None:
    server, evidence = Server(3_600, tells), Evidence()
    run(server, evidence, [7_200.0, 10.0])
    server.kept = 60
    run(server, evidence, [7_200.0, 600.0, 10.0])
    server.requests = 0
    _, job = run(server, evidence, [7_200.0, 700.0, 10.0])
    assert (server.requests, [line.line for line in job.refused]) == (1, [0, 1])


def test_bodies_are_not_read_where_nothing_was_refused_for_long() -> None:
    server, evidence = Server(3_600, "told"), Evidence()
    run(server, evidence, [7_200.0, 10.0])
    server.now = FORGET_SECONDS + 1
    job = WriteJob(b"no line at all", 5, False, evidence=evidence)
    piece = job.take(server.now)
    assert piece is not None and piece.body == b"no line at all"


def test_a_body_that_holds_no_lines_is_sent_as_it_is_with_a_bound_known_too() -> None:
    server, evidence = Server(3_600, "told"), Evidence()
    run(server, evidence, [7_200.0, 10.0])
    for body, gzip in ((b"no gzip", True), (b"no\nlines at all", False)):
        piece = WriteJob(body, 5, gzip, evidence=evidence).take(1.0)
        assert piece is not None and piece.body == body
