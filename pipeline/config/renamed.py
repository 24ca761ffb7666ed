"""Configuration keys and command-line options that had another name: each old name is answered with the new one. Pure.

Nothing is read under an old name. Keys are written with their tables, as in "pipeline.readers"; those of `[[sinks]]`
as at the top level, those of `[[sources]]` with "sources.".
"""

import re
from typing import Final

from msgspec import Struct

_INDEX: Final = re.compile(r"\[\d+\]")
_SERVERS: Final = "list every server in it, the one of url first, and remove url"


class RenamedKey(Struct, frozen=True):
    """A key that has another name now, in the same table."""

    old: str
    new: str
    #: Factor of the value: 1000 where seconds became milliseconds.
    factor: int = 1
    #: Other changes that are necessary.
    advice: str = ""

    @property
    def name(self) -> str:
        """The new name within its table."""
        return self.new.rpartition(".")[2]

    def answer(self, value: object) -> str:
        """The text that answers the old key with this value."""
        if self.factor == 1:
            return f"is now {self.name}" + (f"; {self.advice}" if self.advice else "")
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12:
            return f"is now {self.name}, in milliseconds: {self.name} = {round(value * self.factor)}"
        return f"is now {self.name}, in milliseconds; multiply the value by {self.factor}"


#: Every key that was renamed before 0.1.0.
RENAMED_KEYS: Final = (
    RenamedKey("source", "sources", advice="write [[sources]], [sources.influxdb] and [sources.output]"),
    RenamedKey("pipeline.ingest", "pipeline.readers"),
    RenamedKey("pipeline.drain_seconds", "pipeline.drain_timeout_ms", 1000),
    RenamedKey("pipeline.reread_after_seconds", "pipeline.redelivery_timeout_ms", 1000),
    RenamedKey("pipeline.heartbeat_timeout_seconds", "pipeline.heartbeat_timeout_ms", 1000),
    RenamedKey("pipeline.restart_window_seconds", "pipeline.restart_window_ms", 1000),
    RenamedKey("mapping.separator", "mapping.flatten_separator"),
    RenamedKey("mapping.array_separator", "mapping.array_join_separator"),
    RenamedKey("mapping.max_message_seconds", "mapping.max_message_cpu_ms", 1000),
    RenamedKey("influxdb.more_urls", "influxdb.urls", advice=_SERVERS),
    RenamedKey("influxdb.targets", "influxdb.replication"),
    RenamedKey("influxdb.max_in_flight", "influxdb.max_requests_in_flight"),
    RenamedKey("dead_letters.to", "dead_letters.stores"),
    RenamedKey("dead_letters.keep_files", "dead_letters.max_files"),
    RenamedKey("sources.exclude", "sources.exclude_measurements"),
    RenamedKey("sources.parallel", "sources.max_parallel_queries"),
    RenamedKey("sources.align_ms", "sources.window_align_ms"),
    RenamedKey("sources.influxdb.more_urls", "sources.influxdb.urls", advice=_SERVERS),
    RenamedKey("sources.output.send_messages", "sources.output.messages_per_send"),
)
#: Options of `pipeline start`: the old name, and what to write instead.
RENAMED_OPTIONS: Final = (
    ("--ingest", "--readers"),
    ("--drain-seconds", "--drain-timeout-ms, in milliseconds"),
)
_BY_OLD: Final = {renamed.old: renamed for renamed in RENAMED_KEYS}


def canonical_key(key: str) -> str:
    """A key such as "sinks[0].influxdb.url" or "source[1].influxdb.url" as it stands in `RENAMED_KEYS`."""
    name = _INDEX.sub("", key).removeprefix("sinks.")
    return f"sources.{name.removeprefix('source.')}" if name.startswith("source.") else name


def renamed_key(key: str) -> RenamedKey | None:
    """The entry of an old key, given with its tables and indexes; None for any other key."""
    return _BY_OLD.get(canonical_key(key))
