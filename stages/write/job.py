"""One batch of lines to one database: what is still to be sent, and which lines are refused. Pure.

A job starts with one chunk, the body as the encoder made it. What the server does not store whole is split into smaller
chunks until the bad lines stand alone: O(bad lines x log n) requests. Sending a line twice changes nothing, except
where `may_repeat` is False.
"""

import zlib
from collections import deque
from collections.abc import Iterable, Sequence

from stages.influxdb import body
from stages.influxdb.answers import (
    Accepted,
    Answer,
    BadLines,
    OperatorNeeded,
    Retry,
    TooLarge,
    UnlocatedBadLines,
)
from stages.influxdb.classify import line_reason
from stages.influxdb.error_body import one_line
from stages.influxdb.retention import Bounds
from stages.write.chunk import Chunk, RefusedLine
from stages.write.content import Content
from stages.write.doubt import PROBES, Doubt, Evidence, shows_stored

#: A chunk that alone keeps getting 5xx is split after so many failures while other requests are acknowledged; while
#: nothing of its batch was ever stored, after this times `PATIENCE` for each time it was split before.
SUSPECT_FAILURES = 4
PATIENCE = 2
#: Failures of a single line, while other requests are acknowledged, after which it is a poison line.
POISON_FAILURES = 3
#: Fewest lines of a request to a server that identifies only the first bad line.
MIN_LINES = 16

_Refusal = BadLines | UnlocatedBadLines | TooLarge


class WriteJob:
    """The writing of one batch. Call `take` for a chunk to send, then `answered` with its answer."""

    def __init__(self, encoded: bytes, points: int, gzip: bool, max_bytes: int | None = None,
                 evidence: Evidence | None = None, unit: int = 1) -> None:
        """`encoded` is the body as the encoder made it, of `points` lines; `max_bytes` is the server's limit.

        `evidence` is shared by the jobs of a bucket; without it every refusal is believed. `unit`: nanoseconds of the
        unit of the lines' times.
        """
        self.points = points
        self.refused: list[RefusedLine] = []
        self.sent_bytes = 0
        #: Some of its lines are sent again, or later than the first time: younger batches may be stored before them.
        self.delayed = False
        self.max_bytes = max_bytes
        #: Whether a stored line may be sent once more. Some servers would store it twice.
        self.may_repeat = True
        self._content = Content(encoded, points, gzip, unit)
        self._evidence = evidence or Evidence(stored=1)
        self._doubt = Doubt(self._evidence, points)
        #: A line that was stored; and whether it is sent once more, as a canary.
        self._stored: int | None = None
        self._canary = False
        #: Most lines of a request, once the server has identified only the first bad line of one.
        self._max_lines: int | None = None
        #: Chunks to send; and the number of those whose lines are not all stored or refused.
        self._pending: deque[Chunk] = deque([Chunk(range(points), encoded)])
        self._unfinished = 1

    @property
    def done(self) -> bool:
        """Whether every line is stored or refused."""
        return self._unfinished == 0

    @property
    def in_doubt(self) -> bool:
        """Whether no line of it is refused before something of any batch is stored."""
        return self._doubt.in_doubt

    def take(self, now: float = 0.0) -> Chunk | None:
        """The next chunk to send at `now` (seconds, monotonic), or None while all are in flight.

        Lines outside of the known bounds of the retention are refused: the job may be done with that.
        """
        while self._pending:
            chunk = self._pending.popleft()
            chunk.sent_at = now
            if not self._is_within_retention(chunk, now):
                continue
            if self._max_lines is not None and len(chunk.indices) > self._max_lines:
                self._pending.appendleft(Chunk(chunk.indices[self._max_lines:], None, chunk.depth, chunk.attempts,
                                               rechecks=chunk.rechecks))
                self._unfinished += 1
                chunk.indices, chunk.body = chunk.indices[:self._max_lines], None
            if chunk.body is None:
                chunk.body = self._content.body_of(chunk.indices)
            if self.max_bytes is None or len(chunk.body) <= self.max_bytes or len(chunk.indices) == 1:
                return chunk
            self._split(chunk)
        return None

    def resend(self) -> None:
        """Sends everything once more: an older batch was stored after this one. Refused lines stay refused."""
        refused = {line.line for line in self.refused}
        self._pending.clear()
        if len(refused) < self.points:
            rest = [index for index in range(self.points) if index not in refused]
            self._add(Chunk(rest, None if refused else self._content.encoded))

    def answered(self, chunk: Chunk, answer: Answer, acknowledged: int, now: float = 0.0) -> Answer:
        """The answer to a chunk, which came at `now` (seconds, monotonic).

        `acknowledged` counts the acknowledged requests of all jobs so far. Returns what the answer means for the
        database: an OperatorNeeded if it seems to refuse everything.
        """
        chunk.attempts += 1
        if shows_stored(answer, len(chunk.indices)):
            self._evidence.stored += 1
        if self._evidence.stored:
            self.delayed |= self._doubt.in_doubt
            self._pending.extend(self._doubt.end())
        match answer:
            case OperatorNeeded():
                self.delayed |= not self._doubt.in_doubt
                self._pending.append(chunk)
            case Retry():
                self.delayed |= not self._doubt.in_doubt
                self._failed(chunk, answer, acknowledged)
            case Accepted() if chunk.probe:
                self._unfinished -= 1
                self._doubt.probe_ended()
                if not self.may_repeat:
                    self._leave_out(chunk.indices[0])
            case Accepted():
                self._accepted(chunk)
            case BadLines() | UnlocatedBadLines() | TooLarge():
                return self._not_stored(chunk, answer, now)
        return answer

    def _accepted(self, chunk: Chunk) -> None:
        """All lines of a chunk are stored."""
        self._max_lines = self._max_lines and 2 * self._max_lines
        self.sent_bytes += len(chunk.body or b"")
        self._unfinished -= 1
        self._stored = chunk.indices[0]
        self._canary = self._canary and not chunk.canary
        if chunk.rechecks:
            times = self._content.times()
            self._evidence.retention.learn_stored([times[index] for index in chunk.indices], chunk.sent_at)

    def _not_stored(self, chunk: Chunk, answer: _Refusal, now: float) -> Answer:
        """Some lines of a chunk are refused, or all of them."""
        if chunk.probe:
            self._unfinished -= 1
            self._doubt.probe_ended()
            return self._probe_on(answer, is_probe=True) if self._doubt.has_chunks else answer
        bad = self._located(chunk, answer, now)
        if bad is None and self._may_refuse_everything(answer):
            self._doubt.set_aside(chunk)
            return self._probe_on(answer, is_probe=self.points == 1)
        if bad is None and len(chunk.indices) > 1:
            self.delayed = True
            self._split_for(chunk, answer)
            return answer
        if isinstance(answer, BadLines) and answer.first and bad:
            self._max_lines = max(MIN_LINES, 2 * (chunk.indices.index(next(iter(bad))) + 1))
        self._refuse_some(chunk, answer, bad or {chunk.indices[0]: answer.message})
        return self._believed(answer)

    def _may_refuse_everything(self, answer: _Refusal) -> bool:
        """Whether an answer that identifies no line may be about the request as a whole."""
        about_lines = isinstance(answer, UnlocatedBadLines) and answer.about_lines
        return self._evidence.stored == 0 and not (about_lines and self.points < PROBES)

    def _refuse_some(self, chunk: Chunk, answer: _Refusal, bad: dict[int, str]) -> None:
        """Refuses the `bad` lines of a chunk, and sends the others again unless they are stored."""
        rest = [index for index in chunk.indices if index not in bad]
        if rest and not (isinstance(answer, BadLines) and answer.rest_stored):
            self.delayed = True
            self._add(Chunk(rest, None, chunk.depth, chunk.attempts, rechecks=chunk.rechecks))
        self._refuse(chunk, answer.status, "too_large" if isinstance(answer, TooLarge) else answer.reason, bad)

    def _located(self, chunk: Chunk, answer: _Refusal, now: float) -> dict[int, str] | None:
        """The lines that are refused, and why; None if the answer does not identify them."""
        match answer:
            case BadLines():
                lines = [self._content.lines()[index] for index in chunk.indices]
                found = body.listed_lines(lines, answer.listed) if answer.listed \
                    else body.quoted_lines(lines, answer.message)
                return {chunk.indices[at]: why for at, why in found.items()} if found else None
            case UnlocatedBadLines():
                return self._located_by_number_or_time(chunk, answer, now)
        return None

    def _located_by_number_or_time(self, chunk: Chunk, answer: UnlocatedBadLines, now: float) -> dict[int, str] | None:
        """All lines if so many were dropped; or those outside of the bounds of the retention, which are learned."""
        retention = self._evidence.retention
        if answer.bounds is not None:
            retention.learn(answer.bounds, chunk.sent_at, now)
            if outside := self._outside(chunk.indices, answer.bounds):
                return {index: f"{why}; {answer.message}" for index, why in outside.items()}
        if answer.dropped is None or answer.dropped < len(chunk.indices):
            return None
        if answer.reason == "outside_retention":
            times = self._content.times()
            retention.learn_refused([times[index] for index in chunk.indices], chunk.sent_at, now)
        return dict.fromkeys(chunk.indices, answer.message)

    def _is_within_retention(self, chunk: Chunk, now: float) -> bool:
        """Refuses lines of a chunk outside of the known bounds, unless they are to be checked. False if none is left.
        """
        retention = self._evidence.retention
        bounds = retention.bounds(now)
        if bounds is None or chunk.rechecks or chunk.probe or chunk.canary:
            return True
        try:
            outside = self._outside(chunk.indices, bounds)
        except (ValueError, zlib.error, EOFError):  # an invalid body: the server will refuse it
            return True
        if not outside:
            return True
        if retention.start_recheck(now):
            chunk.rechecks = True
            return True
        self.refused += [RefusedLine(index, "outside_retention", f"{why}; not sent", 0, chunk.attempts,
                                     self._content.text(index)) for index, why in outside.items()]
        chunk.indices = [index for index in chunk.indices if index not in outside]
        chunk.body = None
        self._unfinished -= not chunk.indices
        return bool(chunk.indices)

    def _outside(self, indices: Iterable[int], bounds: Bounds) -> dict[int, str]:
        """The lines outside of the bounds, and why they are refused."""
        times = self._content.times()
        return {index: bounds.refusal(time) for index in indices
                if (time := times[index]) is not None and not bounds.contains(time)}

    def _probe_on(self, answer: _Refusal, is_probe: bool) -> Answer:
        """Tries one more line while nothing was ever stored. After several: an OperatorNeeded."""
        line = self._doubt.refused(is_probe)
        if line is not None:
            self._add(Chunk([line], None, probe=True))
        # Younger batches do not wait for a job in doubt: one of them may show that the server stores something.
        self.delayed = not self._doubt.in_doubt
        if not self._doubt.in_doubt:
            return answer
        return OperatorNeeded("refused", "every line that was tried is refused, and nothing was ever stored: "
                              f"{one_line(answer.message)}; correct the [influxdb] section, or, if the lines are wrong "
                              "(pipeline preview shows them), the mapping", status=answer.status)

    def _believed(self, answer: _Refusal) -> Answer:
        """Puts a batch in doubt of which every line was refused, if that happened too often with nothing ever stored.
        """
        all_refused = not self._unfinished and len(self.refused) >= self.points
        too_old = any(line.reason == "outside_retention" for line in self.refused)
        if not all_refused or self._evidence.stored or too_old or not self._evidence.is_unbelievable():
            return answer
        self.refused.clear()
        self._unfinished = 1
        self._doubt.set_aside(Chunk(range(self.points), self._content.encoded))
        self._evidence.doubted = True
        return self._probe_on(answer, is_probe=True)

    def _refuse(self, chunk: Chunk, status: int, reason: str, bad: dict[int, str]) -> None:
        """Ends a chunk: its `bad` lines are refused, each with its why, from which an empty reason is derived."""
        self.refused += [RefusedLine(index, reason or line_reason(why), why, status, chunk.attempts,
                                     self._content.text(index)) for index, why in bad.items()]
        self._unfinished -= 1

    def _leave_out(self, line: int) -> None:
        """Does not send a line with the others that is stored."""
        for chunk in [chunk for chunk in self._pending if line in chunk.indices]:
            chunk.indices, chunk.body = [index for index in chunk.indices if index != line], None
            if not chunk.indices:
                self._pending.remove(chunk)
                self._unfinished -= 1

    def _failed(self, chunk: Chunk, answer: Retry, acknowledged: int) -> None:
        """Sends a chunk again; splits it, or refuses its only line, if that line is probably the cause."""
        if not answer.suspect:
            self._pending.append(chunk)
            return
        if 0 < answer.line <= len(chunk.indices) and len(chunk.indices) > 1:
            at = answer.line - 1
            self._replace(chunk, chunk.indices[at:at + 1], [*chunk.indices[:at], *chunk.indices[at + 1:]])
            return
        if chunk.failures == 0:
            chunk.acknowledged_before = acknowledged
        chunk.failures += 1
        alone, others_work = len(chunk.indices) == 1, acknowledged > chunk.acknowledged_before
        if chunk.canary or chunk.failures < (POISON_FAILURES if alone else SUSPECT_FAILURES):
            self._pending.append(chunk)
        elif others_work and alone:
            self._refuse(chunk, answer.status, "server_error", {chunk.indices[0]: answer.message})
        elif others_work or not alone and self._stored is None and (
                chunk.failures >= SUSPECT_FAILURES * PATIENCE ** (chunk.depth + 1)):
            self._split(chunk)
        else:
            self._pending.append(chunk)
            self._send_canary()

    def _send_canary(self) -> None:
        """Sends a stored line once more: without other requests nothing distinguishes a poison line from an outage."""
        if self._stored is not None and not self._canary and self.may_repeat:
            self._canary = True
            self._add(Chunk([self._stored], None, canary=True))

    def _split_for(self, chunk: Chunk, answer: _Refusal) -> None:
        """Two chunks in place of one: by time, if lines were refused for theirs; else halves."""
        if isinstance(answer, UnlocatedBadLines) and answer.reason == "outside_retention" and answer.dropped:
            self._replace(chunk, *self._content.by_age(chunk.indices, answer.dropped))
        else:
            self._split(chunk)

    def _split(self, chunk: Chunk) -> None:
        self._replace(chunk, *self._content.halves(chunk.indices))

    def _replace(self, chunk: Chunk, *parts: Sequence[int]) -> None:
        self._unfinished -= 1
        for indices in parts:
            self._add(Chunk(indices, None, chunk.depth + 1, chunk.attempts, rechecks=chunk.rechecks))

    def _add(self, chunk: Chunk) -> None:
        self._unfinished += 1
        self._pending.append(chunk)
