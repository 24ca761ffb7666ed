"""What of a running pipeline a changed configuration affects. Pure."""

from msgspec import Struct
from msgspec.structs import replace

from pipeline.config.schema import Config, InfluxConfig, MappingConfig, PipelineConfig

#: Keys of `[influxdb]` that writers change between two requests.
CREDENTIALS = ("token", "token_file", "username", "password", "headers")


class Changes(Struct, frozen=True):
    """The difference of two configurations, by what has to be done about it."""

    #: The processes of this direction finish what is in flight, and are started again.
    sinks: bool
    sources: bool
    #: Where the pipeline answers over HTTP.
    http: bool
    #: Why the new configuration can only be used by a pipeline that is started with it; "" if that is not so.
    refused: str = ""


def changes_between(old: Config, new: Config) -> Changes:
    """What has to be done so that a pipeline that runs with `old` runs with `new`."""
    return Changes(_sinks(old) != _sinks(new), _sources(old) != _sources(new), old.http != new.http,
                   _refused(old, new))


def _refused(old: Config, new: Config) -> str:
    if old.pipeline.runtime_dir != new.pipeline.runtime_dir:
        return "pipeline.runtime_dir has changed, which is used until the pipeline ends; start the pipeline again"
    return ""


def _sinks(config: Config) -> object:
    """All that the processes of the sinks cannot change while they run."""
    if not config.all_sinks():
        return None
    sinks = [(replace(sink, mapping=MappingConfig(), influxdb=_without_credentials(sink.influxdb)),
              _read_for(sink.mapping)) for sink in config.all_sinks()]
    # Encoders of other machines compare the digest of the whole mapping when they join.
    mappings = [sink.mapping for sink in config.all_sinks()] if config.network.listen else []
    return config.iggy, config.dead_letters, config.network, _fixed(config.pipeline), sinks, mappings


def _sources(config: Config) -> object:
    """The same for the sources."""
    return (config.iggy, _fixed(config.pipeline), config.sources) if config.sources else None


def _read_for(mapping: MappingConfig) -> object:
    """What ingest has to know of a mapping."""
    return (mapping.needs_timestamps(), mapping.timestamp_from, mapping.on_missing_timestamp, mapping.needs_order(),
            mapping.header_names())


def _fixed(pipeline: PipelineConfig) -> PipelineConfig:
    """`[pipeline]` without what the supervisor alone uses, and levels of logs."""
    default = PipelineConfig()
    return replace(pipeline, drain_timeout_ms=default.drain_timeout_ms, log_level=default.log_level,
                   log_levels=default.log_levels, log_format=default.log_format,
                   max_restarts=default.max_restarts, restart_window_ms=default.restart_window_ms)


def _without_credentials(influxdb: InfluxConfig) -> InfluxConfig:
    default = InfluxConfig()
    return replace(influxdb, **{name: getattr(default, name) for name in CREDENTIALS})

