"""Control messages that admit encoders of other machines."""

from msgspec import Struct

from pipeline.wire.common import Index, Pid


class Join(Struct, frozen=True, tag=True):
    """Encoder of another machine -> coordinator, every second instead of Heartbeat: it asks to take part."""

    name: str
    pid: Pid
    #: `pipeline.config.digest` of its configuration.
    digest: str
    #: As in Heartbeat.
    startup_cpu: float = 0.0


class Admit(Struct, frozen=True, tag=True):
    """Coordinator -> encoder of another machine, answers each Join. It connects to the others only then."""

    #: Why it may not take part; "" when it may.
    refused: str
    ingests: Index
    writers: Index


class Allow(Struct, frozen=True, tag=True):
    """Coordinator -> ingest and writers: the keys of the encoders that were admitted. No others may connect."""

    #: Public CURVE keys, as Z85.
    keys: list[str]


class Allowed(Struct, frozen=True, tag=True):
    """Ingest or writer -> coordinator, answers Allow."""

    keys: list[str]


class Leave(Struct, frozen=True, tag=True):
    """Encoder of another machine -> coordinator: it leaves; what it held must be read again."""

    name: str
