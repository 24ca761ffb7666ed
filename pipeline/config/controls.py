"""What an operator has changed of a running pipeline, beside its configuration. Pure."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

#: Levels of the log that an operator may set; "": that of the configuration.
Level = Literal["", "debug", "info", "warning", "error"]


class Selection(Struct, frozen=True):
    """What is paused: partitions of the topics that sinks read, or a source. Without any part it is all of them; empty
    parts beside others select all; `topic` needs `stream`, and `source` stands alone."""

    sink: str = ""
    stream: str = ""
    topic: str = ""
    #: -1: all.
    partition: int = -1
    source: str = ""

    def covers(self, sink: str, stream: str, topic: str, partition: int) -> bool:
        """Whether a partition that a sink reads is selected."""
        return not self.source and (
            self.sink in ("", sink) and self.stream in ("", stream) and self.topic in ("", topic)
            and self.partition in (-1, partition))

    def includes(self, other: "Selection") -> bool:
        """Whether everything that `other` selects is selected."""
        if self == EVERYTHING or self == other:
            return True
        return other != EVERYTHING and not other.source and self.covers(other.sink, other.stream, other.topic,
                                                                        other.partition)

    @property
    def label(self) -> str:
        """The selection for people."""
        parts = [f"source {self.source}" if self.source else "", f"sink {self.sink}" if self.sink else "",
                 f"{self.stream}/{self.topic}" if self.topic else self.stream,
                 f"partition {self.partition}" if self.partition >= 0 else ""]
        return " ".join(filter(None, parts)) or "everything"


#: All topics and all sources.
EVERYTHING = Selection()


class Skip(Struct, frozen=True):
    """Messages of one partition that an operator has given up: those before `offset`."""

    stream: str
    topic: str
    partition: int
    offset: int


class Controls(Struct, frozen=True):
    """All that has been changed."""

    paused: tuple[Selection, ...] = ()
    log_level: Level = ""
    skips: tuple[Skip, ...] = ()

    def is_paused(self, sink: str, stream: str, topic: str, partition: int) -> bool:
        """Whether nothing is to be read from a partition for a sink."""
        return any(one.covers(sink, stream, topic, partition) for one in self.paused)

    def is_source_paused(self, name: str) -> bool:
        """Whether nothing is to be read for a source."""
        return any(one == EVERYTHING or one.source == name for one in self.paused)

    def with_pause(self, selection: Selection) -> "Controls":
        """Pauses what is selected, too."""
        kept = [one for one in self.paused if not selection.includes(one)]
        if any(one.includes(selection) for one in kept):
            return self
        return replace(self, paused=(*kept, selection))

    def with_skip(self, skip: Skip) -> "Controls":
        """Gives up messages, too. What was given up before stays so."""
        before = self.skipped(skip.stream, skip.topic, skip.partition)
        others = tuple(one for one in self.skips if (one.stream, one.topic, one.partition)
                       != (skip.stream, skip.topic, skip.partition))
        return replace(self, skips=(*others, replace(skip, offset=max(before, skip.offset))))

    def skipped(self, stream: str, topic: str, partition: int) -> int:
        """The first offset of a partition that is not given up."""
        return max((one.offset for one in self.skips
                    if (one.stream, one.topic, one.partition) == (stream, topic, partition)), default=0)

    def without_pause(self, selection: Selection) -> "Controls":
        """Ends the pauses of what is selected. A pause of more than that goes on: it has to be ended as a whole."""
        return replace(self, paused=tuple(one for one in self.paused if not selection.includes(one)))


class ControlRequest(Struct, frozen=True):
    """What a command asks a running pipeline for."""

    action: Literal["pause", "resume", "log-level", "skip"]
    selection: Selection = Selection()
    level: Level = ""
    #: Pauses hold after a restart, too.
    keep: bool = False
    skip: Skip | None = None


def applied(request: ControlRequest, controls: Controls) -> Controls:
    """The controls after a request."""
    match request.action:
        case "pause":
            return controls.with_pause(request.selection)
        case "resume":
            return controls.without_pause(request.selection)
        case "skip":
            return controls if request.skip is None else controls.with_skip(request.skip)
        case "log-level":
            return replace(controls, log_level=request.level)


def labels(paused: Sequence[Selection]) -> list[str]:
    """What is paused, for people."""
    return [one.label for one in paused]
