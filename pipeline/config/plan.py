"""The plan of a run: the configuration, and the number of processes of each kind."""

from typing import Literal

from msgspec import Struct

from pipeline.config.controls import Controls
from pipeline.config.schema import Config, PipelineConfig

#: Bits of an epoch that count the coordinators of a run; above them are 40 bits of the run's own.
EPOCH_BITS = 23
#: When a pipeline ends by itself: never; when all is written that was there at its start; after one batch a partition.
Until = Literal["", "caught-up", "once"]


def kind_of(process: str) -> str:
    """The kind of a process of this machine: its name without the number."""
    kind, _, number = process.rpartition("-")
    return kind if number.isdigit() else process


def level_of(pipeline: PipelineConfig, process: str) -> str:
    """The level of a process's log in a configuration; `encode-NAME` is an encoder of another machine."""
    kinds = [kind.replace("-", "_") for kind in (process, kind_of(process), process.partition("-")[0])]
    return next((level for kind in kinds if (level := getattr(pipeline.log_levels, kind, ""))), pipeline.log_level)


class Plan(Struct, frozen=True):
    """All that a child process gets, once, at its start."""

    config: Config
    #: Runtime folder of the sockets.
    folder: str
    #: Encoders, and converters of the source direction.
    encoders: int
    writers: int
    #: Ingest processes.
    ingests: int = 1
    until: Until = ""
    #: Identifies this run, 32 hexadecimal digits: distinguishes states written by another pipeline.
    run: str = ""
    #: How many processes of this name were started before in this run.
    incarnation: int = 0
    #: The reload that has made it; 0: the start.
    reload: int = 0
    #: What an operator has changed.
    controls: Controls = Controls()
    #: Absolute paths of the files and folders that the configuration was read from.
    files: tuple[str, ...] = ()

    @property
    def epoch(self) -> int:
        """The first epoch of the coordinator that gets this plan, from 0 to 2^63 - 1.

        Epochs of later incarnations of a run are larger, and no other run has the same. They are counted, and not taken
        from a clock, which may be set back. Up to 255 more epochs are the same coordinator's.
        """
        return (int(self.run[:10] or "0", 16) << EPOCH_BITS) + (self.incarnation << 8)

    def log_level(self, process: str) -> str:
        """The level of a process's log, for `logging`. What an operator has set of the running pipeline is for all."""
        return (self.controls.log_level or level_of(self.config.pipeline, process)).upper()

    def ingest_names(self) -> list[str]:
        """The names of the ingest processes, by number: "ingest", "ingest-1", ..."""
        return ["ingest", *(f"ingest-{index}" for index in range(1, self.ingests))]

    def stages(self) -> list[str]:
        """The names of the sinks' processes but the coordinator, in the order in which they are started."""
        if not self.config.all_sinks():
            return []
        return [*(["dead-letter"] if self.config.dead_letters.stores else []),
                *(f"write-{index}" for index in range(self.writers)),
                *(f"encode-{index}" for index in range(self.encoders)), *self.ingest_names()]

    def source_stages(self) -> list[str]:
        """The same for the sources."""
        return ["produce", *(f"convert-{index}" for index in range(self.encoders)), "query"] \
            if self.config.sources else []
