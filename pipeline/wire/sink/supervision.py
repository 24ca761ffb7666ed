"""Control messages about processes that died, or could not process a range."""

from msgspec import Struct

from pipeline.wire.common import Count, Index
from pipeline.wire.sink.ranges import Range


class Failed(Struct, frozen=True, tag=True):
    """Ingest -> coordinator: the pipeline must stop, and why."""

    reason: str


class ProcessDied(Struct, frozen=True, tag=True):
    """Supervisor -> coordinator: a process died; what it held must be read again."""

    name: str
    #: The ranges that it worked on, all at the same time; none if that is not known.
    work: list[Range] = []
    #: How it ended, for people.
    how: str = ""
    #: Its pid, by which a repeated report is recognised; 0 where it is not known.
    pid: Index = 0


class Excused(Struct, frozen=True, tag=True):
    """Coordinator -> supervisor, answers a ProcessDied with `work`, which is repeated until then."""

    name: str
    work: list[Range]
    #: Deaths that were caused by messages and do not count as restarts: this one, and perhaps an earlier one.
    deaths: Count


class GaveUp(Struct, frozen=True, tag=True):
    """Encoder -> coordinator: it could not process a range as a whole. The range is to be split and read again."""

    range: Range
    why: str


class Restarted(Struct, frozen=True, tag=True):
    """Encoder of another machine -> coordinator, once admitted: the process before it died, and lost what it held."""

    #: The ranges that that one worked on.
    work: list[Range]
    #: How it ended, for people.
    how: str
