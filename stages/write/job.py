"""One batch on its way into one database: what is still to be sent, and which lines are refused. Pure.

A job begins as one piece, the body as the encoder made it. What the server does not take whole is cut into smaller
pieces until the bad lines stand alone: O(bad lines x log n) requests. Sending a line twice changes nothing.

Whatever a server says, it may be the request that it refuses and not its lines, as long as it has never stored
anything. Then a job tries lines one by one from all over the batch, and is in doubt when none is stored: nothing of it
is refused before something is, be it of another batch.
"""

import zlib
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from pipeline import compression
from stages.influxdb import body
from stages.influxdb.answers import (
    Accepted,
    Answer,
    BadLines,
    OperatorNeeded,
    Retry,
    TooLarge,
    UnlocatedBadLines,
    line_reason,
)
from stages.influxdb.error_body import one_line
from stages.influxdb.retention import Bounds, Retention, times

#: A piece that alone keeps getting 5xx is cut after so many failures while others pass; while nothing was ever stored
#: of its batch, only after this times `PATIENCE` for each time it was cut before.
SUSPECT_FAILURES = 4
PATIENCE = 2
#: Failures of a single line, others passing, after which it is poison.
POISON_FAILURES = 3
#: Single lines, from all over a batch, that are tried before it is in doubt.
PROBES = 8
#: The golden ratio: its multiples, modulo 1, spread evenly however many there are.
_SPREAD = 0.618034
#: Fewest lines of a request to a server that names only the first bad line.
LEAST_RUN = 16
#: Batches of which every line was refused in words about lines, before anything was stored, that are believed.
BELIEVED_BATCHES = 2


class Evidence:
    """What is known of one bucket of one database, by all jobs that write to it."""

    def __init__(self, stored: int = 0) -> None:
        """`stored`: 1 where it need not be shown that the server stores anything."""
        #: Requests of which something was stored.
        self.stored = stored
        #: Batches refused whole before that, in words about lines.
        self.refused_batches = 0
        #: A batch was found to be in doubt.
        self.doubted = False
        #: The times that are taken.
        self.retention = Retention()


class RefusedLine(Struct, frozen=True):
    """A line that the database will never take."""

    line: int
    reason: str
    #: What the server said.
    message: str
    #: HTTP status, 0 where there was none.
    status: int
    attempts: int
    text: str


class Chunk:
    """Lines of a job that are sent in one request."""

    __slots__ = ("attempts", "body", "canary", "depth", "failures", "indices", "passed_before", "probe",
                 "probes_retention", "sent_at")

    def __init__(self, indices: Sequence[int], body: bytes | None, depth: int = 0, attempts: int = 0,
                 canary: bool = False, probe: bool = False, probes_retention: bool = False) -> None:
        self.indices = indices
        #: It is sent whatever the times of its lines, to see whether those outside the known bounds are still refused.
        self.probes_retention = probes_retention
        #: When it was taken, seconds, monotonic.
        self.sent_at = 0.0
        #: A line that is sent to see whether anything is stored; what becomes of it is decided with the others.
        self.probe = probe
        #: A line that was stored before, sent to see whether the server takes anything.
        self.canary = canary
        #: As sent; None until it is made from the lines.
        self.body = body
        self.depth = depth
        self.attempts = attempts
        #: Failures in a row that may be this piece's own fault, and how many requests had passed at the first.
        self.failures = 0
        self.passed_before = 0


class WriteJob:
    """The writing of one batch. Call `take` for a piece to send, then `answered` with what came of it."""

    def __init__(self, content: bytes, points: int, gzip: bool, max_bytes: int | None = None,
                 evidence: Evidence | None = None, unit: int = 1) -> None:
        """`content` is the body as the encoder made it, of `points` lines; `max_bytes` is the server's limit.

        `evidence` is shared by the jobs of a bucket; without it every refusal is believed. `unit`: nanoseconds of one
        in the lines' times.
        """
        self.points = points
        self.refused: list[RefusedLine] = []
        self.sent_bytes = 0
        #: Some lines of it are sent later than the first time: younger batches may be stored before them.
        self.delayed = False
        #: Nothing of it is decided before something of any batch is stored.
        self.in_doubt = False
        self._evidence = evidence or Evidence(stored=1)
        self._content = content
        self._gzip = gzip
        #: A line that was stored, and whether it is on its way once more.
        self._stored: int | None = None
        self._canary = False
        #: While it is not known whether the server stores anything: what was refused, and how many lines were tried.
        self._aside: list[Chunk] = []
        self._probes = 0
        self._probing = False
        self.max_bytes = max_bytes
        self._lines: list[bytes] | None = None
        #: Whether a line that is stored may be sent once more; it is there twice then, at some.
        self.may_repeat = True
        #: Most lines of a request, once a server has named only the first bad line of one: it follows their distance.
        self._run: int | None = None
        self._unit = unit
        self._times: list[int | None] | None = None
        self._open = 1
        self._todo: deque[Chunk] = deque([Chunk(range(points), content)])

    @property
    def done(self) -> bool:
        """Whether every line is stored or refused."""
        return self._open == 0

    def take(self, now: float = 0.0) -> Chunk | None:
        """The next piece to send at `now` (seconds, monotonic), or None while all are on their way.

        Lines that are known to be outside of the times that are taken are refused: the job may be done with that.
        """
        while self._todo:
            piece = self._todo.popleft()
            piece.sent_at = now
            if not self._is_inside(piece, now):
                continue
            if self._run is not None and len(piece.indices) > self._run:
                self._todo.appendleft(Chunk(piece.indices[self._run:], None, piece.depth, piece.attempts,
                                            probes_retention=piece.probes_retention))
                self._open += 1
                piece.indices, piece.body = piece.indices[:self._run], None
            if piece.body is None:
                lines = self.lines()
                plain = b"".join([lines[index] + b"\n" for index in piece.indices])
                piece.body = compression.compress(plain) if self._gzip else plain
            if self.max_bytes is None or len(piece.body) <= self.max_bytes or len(piece.indices) == 1:
                return piece
            self._split(piece)
        return None

    def _is_inside(self, piece: Chunk, now: float) -> bool:
        """Refuses lines of a piece outside of the times that are taken. False where none is left."""
        bounds = self._evidence.retention.bounds(now)
        if bounds is None or piece.probes_retention or piece.probe or piece.canary:
            return True
        try:
            outside = self._outside(piece, bounds)
        except (ValueError, zlib.error, EOFError):  # no lines: the server says so, too
            return True
        if not outside:
            return True
        if self._evidence.retention.should_probe(now):
            piece.probes_retention = True
            return True
        lines = self.lines()
        self.refused += [RefusedLine(index, "outside_retention", f"{why}; not sent", 0, piece.attempts,
                                     lines[index].decode("utf-8", "replace")) for index, why in outside.items()]
        piece.indices = [index for index in piece.indices if index not in outside]
        piece.body = None
        self._open -= not piece.indices
        return bool(piece.indices)

    def _outside(self, piece: Chunk, bounds: Bounds) -> dict[int, str]:
        """The lines of a piece outside of the times that are taken, and why."""
        found = self.times()
        return {index: bounds.why(time) for index in piece.indices
                if (time := found[index]) is not None and not bounds.hold(time)}

    def again(self) -> None:
        """Everything is to be sent once more: an older batch was stored after this one. Refused lines stay refused."""
        refused = {line.line for line in self.refused}
        self._todo.clear()
        if len(refused) < self.points:
            rest = [index for index in range(self.points) if index not in refused]
            self._add(Chunk(rest, None) if refused else Chunk(rest, self._content))

    def lines(self) -> list[bytes]:
        """The batch's lines."""
        if self._lines is None:
            plain = compression.decompress(self._content) if self._gzip else self._content
            self._lines = body.split_lines(plain, self.points)
        return self._lines

    def times(self) -> list[int | None]:
        """The times of the batch's lines, nanoseconds since 1970; None where a line has none."""
        if self._times is None:
            self._times = times(self.lines(), self._unit)
        return self._times

    def answered(self, piece: Chunk, answer: Answer, passed: int, now: float = 0.0) -> Answer:
        """Takes the answer to a piece, which came at `now` (seconds, monotonic).

        `passed` counts the requests that any job has had acknowledged so far. Returns what the answer means for the
        database: a Paused, where it seems to refuse whatever it is sent.
        """
        piece.attempts += 1
        if _shows_stored(answer, len(piece.indices)):
            self._evidence.stored += 1
        if self._evidence.stored:
            self._end_doubt()
        match answer:
            case OperatorNeeded():
                self.delayed |= not self.in_doubt
                self._todo.append(piece)
            case Retry():
                self.delayed |= not self.in_doubt
                self._failed(piece, answer, passed)
            case Accepted() if piece.probe:
                self._open -= 1
                self._probing = False
                if not self.may_repeat:
                    self._leave_out(piece.indices[0])
            case Accepted():
                self._run = self._run and 2 * self._run
                self.sent_bytes += len(piece.body or b"")
                self._open -= 1
                self._stored = piece.indices[0]
                self._canary = self._canary and not piece.canary
                if piece.probes_retention:
                    self._evidence.retention.stored([self.times()[index] for index in piece.indices], piece.sent_at)
            case BadLines() | UnlocatedBadLines() | TooLarge():
                return self._not_taken(piece, answer, now)
        return answer

    def _not_taken(self, piece: Chunk, answer: BadLines | UnlocatedBadLines | TooLarge, now: float) -> Answer:
        """Some lines of a piece are refused, or all of them."""
        if piece.probe:
            self._open -= 1
            self._probing = False
            return self._doubt(answer) if self._aside else answer
        bad = self._located(piece, answer, now)
        alone = len(piece.indices) == 1
        about_lines = isinstance(answer, UnlocatedBadLines) and answer.about_lines
        if bad is None and self._evidence.stored == 0 and not (about_lines and self.points < PROBES):
            self._aside.append(piece)
            return self._doubt(answer, self.points == 1)
        if bad is None and not alone:
            self.delayed = True
            if isinstance(answer, UnlocatedBadLines) and answer.reason == "outside_retention" and answer.dropped:
                self._split_by_time(piece, answer.dropped)
            else:
                self._split(piece)
            return answer
        if isinstance(answer, BadLines) and answer.first and bad:
            self._run = max(LEAST_RUN, 2 * (piece.indices.index(next(iter(bad))) + 1))
        bad = bad or {piece.indices[0]: answer.message}
        rest = [index for index in piece.indices if index not in bad]
        if rest and not (isinstance(answer, BadLines) and answer.rest_stored):
            self.delayed = True
            self._add(Chunk(rest, None, piece.depth, piece.attempts, probes_retention=piece.probes_retention))
        reason = "too_large" if isinstance(answer, TooLarge) else \
            answer.reason
        self._refuse(piece, answer, reason, bad)
        return self._believed(answer)

    def _located(self, piece: Chunk, answer: BadLines | UnlocatedBadLines | TooLarge,
                 now: float) -> dict[int, str] | None:
        """The lines that are refused, and why, as far as the server says which; None where it does not."""
        if isinstance(answer, UnlocatedBadLines) and answer.bounds is not None:
            self._evidence.retention.learn(answer.bounds, piece.sent_at, now)
            outside = self._outside(piece, answer.bounds)
            if outside:
                return {index: f"{why}; {answer.message}" for index, why in outside.items()}
        if isinstance(answer, BadLines):
            lines = [self.lines()[index] for index in piece.indices]
            found = body.listed_lines(lines, answer.listed) if answer.listed \
                else body.named_lines(lines, answer.message)
            return {piece.indices[at]: why for at, why in found.items()} if found else None
        if isinstance(answer, UnlocatedBadLines) and answer.dropped is not None \
                and answer.dropped >= len(piece.indices):
            if answer.reason == "outside_retention":
                self._evidence.retention.refused([self.times()[index] for index in piece.indices], piece.sent_at, now)
            return dict.fromkeys(piece.indices, answer.message)
        return None

    def _doubt(self, answer: BadLines | UnlocatedBadLines | TooLarge, is_probe: bool = True) -> Answer:
        """Tries one more line, while nothing was ever stored; in doubt after some, which is a pause."""
        self._probes += is_probe
        if not self._probing:
            self._probing = True
            at = int(self._probes * _SPREAD % 1 * self.points)
            self._add(Chunk([at], None, probe=True))
        self.in_doubt = self._evidence.doubted or self._probes >= min(PROBES, self.points)
        # Younger batches don't wait for it: one of them may show that the server stores something.
        self.delayed = not self.in_doubt
        self._evidence.doubted |= self.in_doubt
        if not self.in_doubt:
            return answer
        return OperatorNeeded("refused", "every line that was tried is refused, and nothing was ever stored: "
                      f"{one_line(answer.message)}; correct the [influxdb] section, or, if the lines are wrong "
                      "(pipeline preview shows them), the mapping", status=answer.status)

    def _end_doubt(self) -> None:
        """Something was stored: what was refused is looked at as ever."""
        self.delayed |= self.in_doubt
        self._todo.extend(self._aside)
        self._aside.clear()
        self.in_doubt = False
        self._probes = 0

    def _believed(self, answer: BadLines | UnlocatedBadLines | TooLarge) -> Answer:
        """Of several batches, each refused line by line while nothing was ever stored, only the first are believed."""
        from_server = all(line.reason != "outside_retention" for line in self.refused)
        if self._open or len(self.refused) < self.points or self._evidence.stored or not from_server:
            return answer
        self._evidence.refused_batches += 1
        if self._evidence.refused_batches <= BELIEVED_BATCHES:
            return answer
        self.refused.clear()
        self._open, self._aside = 1, [Chunk(range(self.points), self._content)]
        self._evidence.doubted = True
        return self._doubt(answer)

    def _refuse(self, piece: Chunk, answer: BadLines | UnlocatedBadLines | TooLarge | Retry, reason: str,
                bad: dict[int, str]) -> None:
        """Ends a piece: its `bad` lines are refused, each with its why. An empty `reason` is derived from it."""
        lines = self.lines()
        self.refused += [RefusedLine(index, reason or line_reason(why), why, answer.status, piece.attempts,
                                     lines[index].decode("utf-8", "replace")) for index, why in bad.items()]
        self._open -= 1

    def _leave_out(self, line: int) -> None:
        """A line is stored: it is not sent with the others."""
        for piece in [piece for piece in self._todo if line in piece.indices]:
            piece.indices, piece.body = [index for index in piece.indices if index != line], None
            if not piece.indices:
                self._todo.remove(piece)
                self._open -= 1

    def _failed(self, piece: Chunk, answer: Retry, passed: int) -> None:
        if not answer.suspect:
            self._todo.append(piece)
            return
        if 0 < answer.line <= len(piece.indices) and len(piece.indices) > 1:
            at = answer.line - 1
            self._replace(piece, piece.indices[at:at + 1], [*piece.indices[:at], *piece.indices[at + 1:]])
            return
        if piece.failures == 0:
            piece.passed_before = passed
        piece.failures += 1
        alone = len(piece.indices) == 1
        if piece.canary or piece.failures < (POISON_FAILURES if alone else SUSPECT_FAILURES):
            self._todo.append(piece)
        elif passed > piece.passed_before and alone:
            self._refuse(piece, answer, "server_error", {piece.indices[0]: answer.message})
        elif passed > piece.passed_before or not alone and self._stored is None and (
                piece.failures >= SUSPECT_FAILURES * PATIENCE ** (piece.depth + 1)):
            self._split(piece)
        else:
            self._todo.append(piece)
            if self._stored is not None and not self._canary and self.may_repeat:
                # Nothing else is being written that could tell a poisonous line from a server in trouble.
                self._canary = True
                self._add(Chunk([self._stored], None, canary=True))

    def _split(self, piece: Chunk) -> None:
        """Two pieces of about half the bytes in place of one."""
        lines = self.lines()
        half = sum(len(lines[index]) + 1 for index in piece.indices) / 2
        size = at = 0
        while at < len(piece.indices) - 1 and (size < half or at == 0):
            size += len(lines[piece.indices[at]]) + 1
            at += 1
        self._replace(piece, piece.indices[:at], piece.indices[at:])

    def _split_by_time(self, piece: Chunk, oldest: int) -> None:
        """Two pieces in place of one, with so many of the oldest lines in the first; there are more."""
        found = self.times()
        by_time = sorted(piece.indices, key=lambda index: (found[index] is None, found[index] or 0))
        self._replace(piece, sorted(by_time[:oldest]), sorted(by_time[oldest:]))

    def _replace(self, piece: Chunk, *parts: Sequence[int]) -> None:
        self._open -= 1
        for indices in parts:
            self._add(Chunk(indices, None, piece.depth + 1, piece.attempts, probes_retention=piece.probes_retention))

    def _add(self, piece: Chunk) -> None:
        self._open += 1
        self._todo.append(piece)


def _shows_stored(answer: Answer, lines: int) -> bool:
    """Whether an answer to a request of so many lines shows that some of them are stored."""
    match answer:
        case Accepted():
            return True
        case BadLines(rest_stored=True, listed=listed):
            return lines > 1 and len(listed) < lines
        case UnlocatedBadLines(dropped=int(dropped)):
            return 0 < dropped < lines
    return False
