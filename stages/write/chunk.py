"""The parts of a write job: lines that are sent in one request, and lines that were refused."""

from collections.abc import Sequence

from msgspec import Struct


class RefusedLine(Struct, frozen=True):
    """A line that the database will never accept."""

    line: int
    reason: str
    #: The server's message about it.
    message: str
    #: HTTP status; 0 where there was no answer.
    status: int
    attempts: int
    text: str


class Chunk:
    """Lines of a job that are sent in one request."""

    __slots__ = ("acknowledged_before", "attempts", "body", "canary", "depth", "failures", "indices", "probe",
                 "rechecks", "sent_at")

    def __init__(self, indices: Sequence[int], body: bytes | None, depth: int = 0, attempts: int = 0,
                 canary: bool = False, probe: bool = False, rechecks: bool = False) -> None:
        self.indices = indices
        #: As sent; None until it is made from the lines.
        self.body = body
        #: How often the lines were split off a larger chunk.
        self.depth = depth
        self.attempts = attempts
        #: A stored line, sent once more to see whether the server stores anything now.
        self.canary = canary
        #: A line that is sent to see whether the server stores anything at all. It is in another chunk, too.
        self.probe = probe
        #: It is sent with lines outside of the known bounds, to see whether they are still refused.
        self.rechecks = rechecks
        #: When it was taken, seconds, monotonic.
        self.sent_at = 0.0
        #: Failures in a row that this chunk may have caused, and the acknowledged requests at the first of them.
        self.failures = 0
        self.acknowledged_before = 0
