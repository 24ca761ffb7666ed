"""What `[pipeline]` says of the log."""

from typing import Literal

from msgspec import Struct

LogLevel = Literal["debug", "info", "warning", "error"]
#: "" stands for `pipeline.log_level`.
StageLevel = Literal["", "debug", "info", "warning", "error"]


class LogLevels(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[pipeline.log_levels]`: levels of single stages. Can be changed by a reload."""

    #: The process of `pipeline start`. "" is `pipeline.log_level`.
    supervisor: StageLevel = ""
    #: The HTTP process.
    http: StageLevel = ""
    #: The coordinator of the sinks.
    coordinator: StageLevel = ""
    #: What reads Iggy.
    ingest: StageLevel = ""
    #: Encoders, also those of other machines.
    encode: StageLevel = ""
    #: What writes to the databases.
    write: StageLevel = ""
    #: What stores dead letters.
    dead_letter: StageLevel = ""
    #: The coordinator of the sources.
    source_coordinator: StageLevel = ""
    #: What queries the databases of sources.
    query: StageLevel = ""
    #: What converts their answers.
    convert: StageLevel = ""
    #: What sends to Iggy.
    produce: StageLevel = ""
