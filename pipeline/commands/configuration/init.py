"""`pipeline config init`: a commented configuration to start with. Its comments are those of the schema."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from pipeline.config.descriptions import descriptions
from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import (
    DeadLetterConfig,
    InfluxConfig,
    MappingConfig,
    PipelineConfig,
    TopicConfig,
)
from pipeline.config.source_schema import OutputConfig, SourceConfig, SourceInfluxConfig
from pipeline.config.toml_values import toml_value

#: Key -> its value, and keys that are shown with their defaults, as comments.
Keys = Mapping[str, Any]

_TOKEN: Final = "${INFLUX_TOKEN:-}"  # nosec B105  # the variable, not a token
_CLOUD: Final = "https://eu-central-1-1.aws.cloud2.influxdata.com"
#: What each kind of server is called, and the keys of its connection.
_SERVERS: Final[Mapping[str, tuple[str, Keys]]] = {
    "v1": ("InfluxDB 1.x", {"url": "http://127.0.0.1:8086", "version": "v1", "database": "telemetry", "username": "",
                            "password": ""}),  # nosec B105  # none
    "v2": ("InfluxDB 2.x", {"url": "http://127.0.0.1:8086", "version": "v2", "org": "my-org", "bucket": "telemetry",
                            "token": _TOKEN}),
    "v3": ("InfluxDB 3", {"url": "http://127.0.0.1:8181", "version": "v3", "database": "telemetry", "token": _TOKEN}),
    "cloud": ("InfluxDB Cloud", {"url": _CLOUD, "version": "v2", "org": "my-org", "bucket": "telemetry",
                                 "token": _TOKEN}),
    "victoriametrics": ("VictoriaMetrics", {"url": "http://127.0.0.1:8428", "version": "v1", "database": "telemetry",
                                            "precision": "ms"}),
    "questdb": ("QuestDB", {"url": "http://127.0.0.1:9000", "version": "v1", "database": "qdb", "precision": "us"}),
}
_SHOWN_INFLUX: Final = ("token_file", "ca_file", "precision", "urls", "replication")


def new_config(sink: str | None, source: str | None, every_key: bool = False) -> str:
    """The text; of `sink`, `source` or both. With `every_key`, all other keys with their defaults, as comments."""
    names = [f"Iggy -> {_SERVERS[sink][0]}"] if sink else []
    names += [f"{_SERVERS[source][0]} -> Iggy"] if source else []
    lines = [f"# {', and '.join(names)}.",
             "# Check it:   pipeline config check -c FILE    (--connect also asks the servers)",
             "# Run it:     pipeline start -c FILE",
             "# Every key:  pipeline config init --all; for editors, pipeline config schema"]
    writer = _Writer(every_key)
    lines += writer.table("[iggy]", IggyConfig, {"address": "127.0.0.1:8090", "username": "iggy",
                                                 "password": "${IGGY_PASSWORD:-iggy}"},  # nosec B105
                          ("password_file", "token_file", "consumer", "consumer_group"))
    if sink:
        lines += _sink_lines(writer, sink)
    if source:
        lines += _source_lines(writer, source, bool(sink))
    lines += writer.table("[pipeline]", PipelineConfig, {"workers": 0, "log_level": "info"},
                          ("batch_size", "flush_interval_ms", "drain_timeout_ms", "runtime_dir") if sink else
                          ("drain_timeout_ms", "runtime_dir"), also=bool(sink))
    return "\n".join(lines) + "\n"


def _sink_lines(writer: "_Writer", sink: str) -> Iterator[str]:
    keys = dict(_SERVERS[sink][1])
    mapping: dict[str, Any] = {"measurement_from": "topic", "tag_fields": ["site", "device"]}
    if sink in ("victoriametrics", "questdb"):
        mapping |= {"timestamp_from": "field", "timestamp_field": "ts", "timestamp_format": "epoch_ms"}
    yield from writer.table("[[topics]]", TopicConfig, {"stream": "telemetry", "topic": "sensors"}, ("start_from",))
    yield ""
    yield '# A message {"site": "a", "device": "d1", "temperature": 20.5} of the topic sensors becomes the line'
    yield "# sensors,device=d1,site=a temperature=20.5 TIME. Try it: pipeline preview -c FILE --input MESSAGES"
    yield from writer.table("[mapping]", MappingConfig, mapping,
                            ("timestamp_from", "timestamp_field", "timestamp_format", "format", "types"))
    yield from writer.table("[influxdb]", InfluxConfig, keys, _SHOWN_INFLUX)
    yield from writer.table("[dead_letters]", DeadLetterConfig, {"stores": ["iggy"], "topic": "influxdb-dlq"},
                            ("file",))


def _source_lines(writer: "_Writer", source: str, beside_sink: bool) -> Iterator[str]:
    keys = {name: value for name, value in _SERVERS[source][1].items() if name != "precision"}
    if beside_sink:
        # Else every point would circulate: it would be read where it was written.
        keys |= {name: f"{keys[name]}-source" for name in ("bucket", "database") if name in keys}
    yield from writer.table("[[sources]]", SourceConfig, {
        "name": "telemetry", "state_file": "telemetry.state.json", "measurements": ["*"], "from": "earliest"},
        ("exclude_measurements", "state_topic", "poll_interval_ms", "buffer_duration_ms", "overlap_ms"))
    yield from writer.table("[sources.influxdb]", SourceInfluxConfig, keys, ("token_file", "ca_file"))
    yield from writer.table("[sources.output]", OutputConfig, {"stream": "influxdb", "topic": "{measurement}"},
                            ("format", "batch_points", "partitions", "dead_letter_topic"))


class _Writer:
    def __init__(self, every_key: bool) -> None:
        self._every_key = every_key

    def table(self, header: str, struct: type[msgspec.Struct], given: Keys, shown: Sequence[str],
              also: bool = True) -> Iterator[str]:
        """A table: the given keys, and others with their defaults as comments; `also`: every other one may be there."""
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        about = descriptions(struct)
        names = [*given, *(name for name in shown if name not in given)]
        if self._every_key and also:
            names += [name for name in fields if name not in names]
        yield from ("", header)
        for name in names:
            field = fields[name]
            default = None if field.required else field.default if field.default is not msgspec.NODEFAULT else \
                field.default_factory() if callable(field.default_factory) else None
            if name not in given and (default is None or isinstance(default, msgspec.Struct)):
                continue
            for line in textwrap.wrap(about.get(field.name, "").replace("`", ""), 110):
                yield f"# {line}"
            value = toml_value(given[name] if name in given else default)
            yield f"{name} = {value}" if name in given else f"#{name} = {value}"
