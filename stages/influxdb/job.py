"""One batch on its way into one database: what is still to be sent, and which lines are refused. Pure.

A job begins as one piece, the body as the encoder made it. What the server does not take whole is cut into smaller
pieces until the bad lines stand alone: O(bad lines x log n) requests. Sending a line twice changes nothing.
"""

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from stages.influxdb import body
from stages.influxdb.answers import (
    Again,
    Answer,
    BadLines,
    BadSomewhere,
    Paused,
    TooLarge,
    Written,
    line_reason,
)

#: A piece that alone keeps getting 5xx is cut after so many failures while others pass; while nothing was ever stored
#: of its batch, only after this times `PATIENCE` for each time it was cut before.
SUSPECT_FAILURES = 4
PATIENCE = 2
#: Failures of a single line, others passing, after which it is poison.
POISON_FAILURES = 3


class RefusedLine(Struct, frozen=True):
    """A line that the database will never take."""

    line: int
    reason: str
    #: What the server said.
    words: str
    #: HTTP status, 0 where there was none.
    status: int
    attempts: int
    text: str


class Piece:
    """Lines of a job that are sent in one request."""

    __slots__ = ("attempts", "body", "canary", "depth", "failures", "indices", "passed_before")

    def __init__(self, indices: Sequence[int], body: bytes | None, depth: int = 0, attempts: int = 0,
                 canary: bool = False) -> None:
        self.indices = indices
        #: A line that was stored before, sent to see whether the server takes anything.
        self.canary = canary
        #: As sent; None until it is made from the lines.
        self.body = body
        self.depth = depth
        self.attempts = attempts
        #: Failures in a row that may be this piece's own fault, and how many requests had passed at the first.
        self.failures = 0
        self.passed_before = 0


class Job:
    """The writing of one batch. Call `take` for a piece to send, then `answered` with what came of it."""

    def __init__(self, content: bytes, points: int, gzip: bool, max_bytes: int | None = None) -> None:
        """`content` is the body as the encoder made it, of `points` lines; `max_bytes` is the server's limit."""
        self.points = points
        self.refused: list[RefusedLine] = []
        self.sent_bytes = 0
        #: Some lines of it are sent later than the first time: younger batches may be stored before them.
        self.delayed = False
        self._content = content
        self._gzip = gzip
        #: A line that was stored, and whether it is on its way once more.
        self._stored: int | None = None
        self._canary = False
        self.max_bytes = max_bytes
        self._lines: list[bytes] | None = None
        self._open = 1
        self._todo: deque[Piece] = deque([Piece(range(points), content)])

    @property
    def done(self) -> bool:
        """Whether every line is stored or refused."""
        return self._open == 0

    def take(self) -> Piece | None:
        """The next piece to send, or None while all are on their way."""
        while self._todo:
            piece = self._todo.popleft()
            if piece.body is None:
                lines = self.lines()
                plain = b"".join([lines[index] + b"\n" for index in piece.indices])
                piece.body = body.compress(plain) if self._gzip else plain
            if self.max_bytes is None or len(piece.body) <= self.max_bytes or len(piece.indices) == 1:
                return piece
            self._split(piece)
        return None

    def again(self) -> None:
        """Everything is to be sent once more: an older batch was stored after this one. Refused lines stay refused."""
        refused = {line.line for line in self.refused}
        self._todo.clear()
        if len(refused) < self.points:
            rest = [index for index in range(self.points) if index not in refused]
            self._add(Piece(rest, None) if refused else Piece(rest, self._content))

    def lines(self) -> list[bytes]:
        """The batch's lines."""
        if self._lines is None:
            self._lines = body.split_lines(body.decompress(self._content) if self._gzip else self._content, self.points)
        return self._lines

    def answered(self, piece: Piece, answer: Answer, passed: int) -> None:
        """Takes the answer to a piece; `passed` counts the requests that any job has had acknowledged so far."""
        piece.attempts += 1
        match answer:
            case Written():
                self.sent_bytes += len(piece.body or b"")
                self._open -= 1
                self._stored = piece.indices[0]
                self._canary = self._canary and not piece.canary
            case BadLines():
                self._named(piece, answer)
            case BadSomewhere(reason=reason, dropped=dropped):
                if len(piece.indices) == 1 or dropped is not None and dropped >= len(piece.indices):
                    self._refuse(piece, answer, reason)
                else:
                    self.delayed = True
                    self._split(piece)
            case TooLarge():
                self.delayed = True
                if len(piece.indices) == 1:
                    self._refuse(piece, answer, "too_large")
                else:
                    self._split(piece)
            case Paused():
                self.delayed = True
                self._todo.append(piece)
            case Again():
                self.delayed = True
                self._failed(piece, answer, passed)

    def _named(self, piece: Piece, answer: BadLines) -> None:
        lines = [self.lines()[index] for index in piece.indices]
        found = body.listed_lines(lines, answer.listed) if answer.listed else body.named_lines(lines, answer.words)
        if not found:
            if len(piece.indices) > 1:
                self.delayed = True
                self._split(piece)
                return
            found = {0: answer.words}
        bad = {piece.indices[at]: why for at, why in found.items()}
        rest = [index for index in piece.indices if index not in bad]
        if rest and not answer.rest_stored:
            self.delayed = True
            self._add(Piece(rest, None, piece.depth, piece.attempts))
        self._refuse(piece, answer, "", bad)

    def _refuse(self, piece: Piece, answer: BadLines | BadSomewhere | TooLarge | Again, reason: str,
                bad: dict[int, str] | None = None) -> None:
        """Ends a piece: all of its lines, or the `bad` ones, are refused. An empty reason is told from the words."""
        lines = self.lines()
        bad = bad if bad is not None else dict.fromkeys(piece.indices, answer.words)
        self.refused += [RefusedLine(index, reason or line_reason(why), why, answer.status, piece.attempts,
                                     lines[index].decode("utf-8", "replace")) for index, why in bad.items()]
        self._open -= 1

    def _failed(self, piece: Piece, answer: Again, passed: int) -> None:
        if not answer.suspect:
            self._todo.append(piece)
            return
        if piece.failures == 0:
            piece.passed_before = passed
        piece.failures += 1
        alone = len(piece.indices) == 1
        if piece.canary or piece.failures < (POISON_FAILURES if alone else SUSPECT_FAILURES):
            self._todo.append(piece)
        elif passed > piece.passed_before and alone:
            self._refuse(piece, answer, "server_error")
        elif passed > piece.passed_before or not alone and self._stored is None and (
                piece.failures >= SUSPECT_FAILURES * PATIENCE ** (piece.depth + 1)):
            self._split(piece)
        else:
            self._todo.append(piece)
            if self._stored is not None and not self._canary:
                # Nothing else is being written that could tell a poisonous line from a server in trouble.
                self._canary = True
                self._add(Piece([self._stored], None, canary=True))

    def _split(self, piece: Piece) -> None:
        """Two pieces of about half the bytes in place of one."""
        lines = self.lines()
        half = sum(len(lines[index]) + 1 for index in piece.indices) / 2
        size = at = 0
        while at < len(piece.indices) - 1 and (size < half or at == 0):
            size += len(lines[piece.indices[at]]) + 1
            at += 1
        self._open -= 1
        for indices in (piece.indices[:at], piece.indices[at:]):
            self._add(Piece(indices, None, piece.depth + 1, piece.attempts))

    def _add(self, piece: Piece) -> None:
        self._open += 1
        self._todo.append(piece)
