"""Whether a server refuses the lines of a batch, or whatever it gets. Pure.

A server that has never stored anything may refuse the request and not its lines, whatever its message is. Then single
lines from all over the batch are tried. If none is stored, the batch is in doubt: none of its lines is rejected before
the server has stored something, be it of another batch.
"""

from stages.influxdb.answers import Accepted, Answer, BadLines, UnlocatedBadLines
from stages.influxdb.retention import Retention
from stages.write.chunk import Chunk

#: Single lines, from all over a batch, that are tried before it is in doubt.
PROBES = 8
#: Batches whose lines were all identified as bad, before anything was stored, that are rejected without doubt.
MAX_BELIEVED_BATCHES = 2
#: The golden ratio: its multiples, modulo 1, are evenly spread for any number of them.
_SPREAD = 0.618034


class Evidence:
    """What is known of one bucket of one database, shared by all jobs that write to it."""

    def __init__(self, stored: int = 0) -> None:
        """`stored`: 1 if the server is known to store lines."""
        #: Requests of which something was stored.
        self.stored = stored
        #: Batches whose lines were all rejected before that.
        self.rejected_batches = 0
        #: A batch is, or was, in doubt.
        self.doubted = False
        #: The times that the bucket accepts.
        self.retention = Retention()

    def is_unbelievable(self) -> bool:
        """Counts a batch whose lines were all rejected while nothing was ever stored. True if there were too many."""
        self.rejected_batches += 1
        return self.rejected_batches > MAX_BELIEVED_BATCHES


class Doubt:
    """The probes of one job, and the chunks that wait for them."""

    def __init__(self, evidence: Evidence, points: int) -> None:
        """`points`: lines of the batch."""
        self.in_doubt = False
        self._evidence = evidence
        self._points = points
        self._set_aside: list[Chunk] = []
        self._probes = 0
        self._probing = False

    @property
    def has_chunks(self) -> bool:
        """Whether chunks wait for the outcome."""
        return bool(self._set_aside)

    def set_aside(self, chunk: Chunk) -> None:
        """Keeps a refused chunk until something is stored."""
        self._set_aside.append(chunk)

    def probe_ended(self) -> None:
        """The probe in flight was answered."""
        self._probing = False

    def refused(self, is_probe: bool) -> int | None:
        """A chunk, or a probe, was refused. Returns the line to probe next; None while one is in flight."""
        self._probes += is_probe
        line = None
        if not self._probing:
            self._probing = True
            line = int(self._probes * _SPREAD % 1 * self._points)
        self.in_doubt = self._evidence.doubted or self._probes >= min(PROBES, self._points)
        self._evidence.doubted |= self.in_doubt
        return line

    def end(self) -> list[Chunk]:
        """Something was stored. Returns the chunks that were set aside."""
        chunks, self._set_aside = self._set_aside, []
        self.in_doubt = False
        self._probes = 0
        return chunks


def shows_stored(answer: Answer, lines: int) -> bool:
    """Whether an answer to a request of so many lines means that some of them are stored."""
    match answer:
        case Accepted():
            return True
        case BadLines(rest_stored=True, listed=listed):
            return lines > 1 and len(listed) < lines
        case UnlocatedBadLines(dropped=int(dropped)):
            return 0 < dropped < lines
    return False
