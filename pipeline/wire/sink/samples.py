"""What `pipeline tap` shows: samples of the lines that writers are about to write."""

from msgspec import Struct


class LineSample(Struct, frozen=True):
    """One line, and the message that it comes from; the first of them where there are several."""

    sink: str
    stream: str
    topic: str
    partition: int
    offset: int
    #: "" for the configured bucket or database.
    bucket: str
    #: Cut where it is very long.
    line: str


class LineSamples(Struct, frozen=True, tag=True):
    """Writer -> HTTP process, while somebody taps: some lines of one batch."""

    lines: list[LineSample]
