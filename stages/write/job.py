"""Writes one batch to one database: which lines are still to be sent, and which are refused. Pure.

A job starts as one piece, the body from the encoder. A piece that the server does not accept as a whole is divided
until the bad lines are found: O(bad lines x log n) requests. Sending a line twice changes nothing.

As long as a server has never stored anything, it may refuse the request rather than its lines, whatever its message. A
job then tries single lines from the whole batch. If none is stored it is in doubt: none of its lines is refused before
something is stored, by this job or another.
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

#: A piece that alone keeps getting 5xx is divided after this many failures while others succeed; while nothing of its
#: batch was ever stored, only after this times `PATIENCE` for each earlier division.
SUSPECT_FAILURES = 4
PATIENCE = 2
#: Failures of a single line, while others succeed, after which it is refused.
POISON_FAILURES = 3
#: Single lines, from the whole batch, that are tried before it is in doubt.
PROBES = 8
#: The golden ratio: its multiples, modulo 1, spread evenly however many there are.
_SPREAD = 0.618034
#: Fewest lines of a request to a server that identifies only the first bad line.
LEAST_RUN = 16
#: Batches of which every line was refused by messages about lines, before anything was stored, that are trusted.
BELIEVED_BATCHES = 2


class Evidence:
    """What all jobs that write to one bucket of one database know about it."""

    def __init__(self, stored: int = 0) -> None:
        """`stored`: 1 if the server is known to store lines."""
        #: Requests of which something was stored.
        self.stored = stored
        #: Batches that were refused completely before that, by messages about lines.
        self.refused_batches = 0
        #: A batch was found to be in doubt.
        self.doubted = False
        #: The times that are accepted.
        self.retention = Retention()


class RefusedLine(Struct, frozen=True):
    """A line that the database will never accept."""

    line: int
    reason: str
    #: The server's message.
    message: str
    #: HTTP status; 0 if there was none.
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
        #: It is sent regardless of its lines' times, to check that those outside the known bounds are still refused.
        self.probes_retention = probes_retention
        #: When it was sent, seconds, monotonic.
        self.sent_at = 0.0
        #: A single line that is sent to check whether the server stores anything; it is sent again with the others.
        self.probe = probe
        #: A line that was stored before, sent to check whether the server accepts anything.
        self.canary = canary
        #: The body as sent; None until it is made from the lines.
        self.body = body
        self.depth = depth
        self.attempts = attempts
        #: Consecutive failures that this piece may have caused, and the number of successful requests at the first one.
        self.failures = 0
        self.passed_before = 0


class WriteJob:
    """The writing of one batch. Call `take` for a piece to send, then `answered` with the answer to it."""

    def __init__(self, content: bytes, points: int, gzip: bool, max_bytes: int | None = None,
                 evidence: Evidence | None = None, unit: int = 1) -> None:
        """`content` is the body from the encoder, with `points` lines; `max_bytes` is the server's limit.

        `evidence` is shared by the jobs of a bucket; without it every refusal is trusted. `unit`: nanoseconds of the
        unit of the lines' times.
        """
        self.points = points
        self.refused: list[RefusedLine] = []
        self.sent_bytes = 0
        #: Some lines are sent again: younger batches may be stored before them.
        self.delayed = False
        #: No line of it is refused before something of any batch is stored.
        self.in_doubt = False
        self._evidence = evidence or Evidence(stored=1)
        self._content = content
        self._gzip = gzip
        #: A line that was stored, and whether it is being sent once more.
        self._stored: int | None = None
        self._canary = False
        #: While it is unknown whether the server stores anything: refused pieces, and the number of lines tried.
        self._aside: list[Chunk] = []
        self._probes = 0
        self._probing = False
        self.max_bytes = max_bytes
        self._lines: list[bytes] | None = None
        #: Whether a stored line may be sent once more; some servers then store it twice.
        self.may_repeat = True
        #: Most lines of a request, after a server identified only the first bad line: it follows their distance.
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
        """The next piece to send at `now` (seconds, monotonic), or None while all are in flight.

        Lines outside the known bounds of accepted times are refused; the job may be done after that.
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
        """Refuses lines of a piece outside the accepted times. False if no line is left."""
        bounds = self._evidence.retention.bounds(now)
        if bounds is None or piece.probes_retention or piece.probe or piece.canary:
            return True
        try:
            outside = self._outside(piece, bounds)
        except (ValueError, zlib.error, EOFError):  # not lines: the server will refuse them
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
        """The lines of a piece outside the accepted times, and why."""
        found = self.times()
        return {index: bounds.why(time) for index in piece.indices
                if (time := found[index]) is not None and not bounds.hold(time)}

    def again(self) -> None:
        """Starts again, because an older batch was stored after this one. Refused lines stay refused."""
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
        """The times of the batch's lines, nanoseconds since 1970; None for a line without a time."""
        if self._times is None:
            self._times = times(self.lines(), self._unit)
        return self._times

    def answered(self, piece: Chunk, answer: Answer, passed: int, now: float = 0.0) -> Answer:
        """Handles the answer to a piece, received at `now` (seconds, monotonic).

        `passed` is the number of requests of all jobs that were acknowledged so far. Returns what the answer means for
        the database: OperatorNeeded if it seems to refuse everything.
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
        """Tries another single line while nothing was ever stored. After PROBES lines the job is in doubt and
        pauses."""
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
        """Ends the doubt after something was stored: refused pieces are sent again."""
        self.delayed |= self.in_doubt
        self._todo.extend(self._aside)
        self._aside.clear()
        self.in_doubt = False
        self._probes = 0

    def _believed(self, answer: BadLines | UnlocatedBadLines | TooLarge) -> Answer:
        """Trusts only the first BELIEVED_BATCHES batches that are refused line by line while nothing was ever
        stored."""
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
        """Ends a piece: its `bad` lines (index -> why) are refused. An empty `reason` is derived from why."""
        lines = self.lines()
        self.refused += [RefusedLine(index, reason or line_reason(why), why, answer.status, piece.attempts,
                                     lines[index].decode("utf-8", "replace")) for index, why in bad.items()]
        self._open -= 1

    def _leave_out(self, line: int) -> None:
        """Removes a line that is stored from the pieces to send."""
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
        """Replaces a piece with two of about half its bytes."""
        lines = self.lines()
        half = sum(len(lines[index]) + 1 for index in piece.indices) / 2
        size = at = 0
        while at < len(piece.indices) - 1 and (size < half or at == 0):
            size += len(lines[piece.indices[at]]) + 1
            at += 1
        self._replace(piece, piece.indices[:at], piece.indices[at:])

    def _split_by_time(self, piece: Chunk, oldest: int) -> None:
        """Replaces a piece with two, of which the first has the `oldest` oldest lines. The piece has more lines."""
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
    """Whether the answer to a request of `lines` lines shows that some of them are stored."""
    match answer:
        case Accepted():
            return True
        case BadLines(rest_stored=True, listed=listed):
            return lines > 1 and len(listed) < lines
        case UnlocatedBadLines(dropped=int(dropped)):
            return 0 < dropped < lines
    return False
