"""What a changed configuration has to do with a running pipeline."""

from msgspec.structs import replace

from pipeline.config.changes import changes_between
from pipeline.config.http_schema import HttpConfig
from pipeline.config.schema import (
    Config,
    InfluxConfig,
    MappingConfig,
    NetworkConfig,
    PipelineConfig,
    TopicConfig,
)

OLD = Config(topics=(TopicConfig(stream="s", topic="t"),), influxdb=InfluxConfig(url="http://localhost:8086"),
             mapping=MappingConfig(tag_fields=("site",)))


def test_a_mapping_credentials_and_levels_of_logs_change_while_everything_runs() -> None:
    new = replace(OLD, mapping=MappingConfig(tag_fields=("site", "line"), types={"v": "integer"}),
                  influxdb=replace(OLD.influxdb, token="other", headers={"X": "y"}),
                  pipeline=PipelineConfig(log_level="debug", drain_timeout_ms=1))
    changes = changes_between(OLD, new)
    assert not (changes.sinks or changes.sources or changes.http or changes.refused)


def test_what_ingest_has_to_know_of_a_mapping_needs_a_new_start_of_the_sinks() -> None:
    for mapping in (MappingConfig(header_tags={"site": "site"}), MappingConfig(timestamp_from="origin_timestamp"),
                    MappingConfig(timestamp_from="arrival")):
        assert changes_between(OLD, replace(OLD, mapping=mapping)).sinks


def test_whatever_else_processes_hold_needs_a_new_start_of_the_sinks() -> None:
    for new in (replace(OLD, topics=(TopicConfig(stream="s", topic="u"),)),
                replace(OLD, influxdb=replace(OLD.influxdb, precision="ms")),
                replace(OLD, influxdb=replace(OLD.influxdb, url="http://elsewhere:8086")),
                replace(OLD, pipeline=PipelineConfig(batch_size=1)),
                replace(OLD, iggy=replace(OLD.iggy, consumer="other"))):
        changes = changes_between(OLD, new)
        assert changes.sinks and not changes.sources


def test_encoders_of_other_machines_have_the_whole_mapping_compared() -> None:
    old = replace(OLD, network=NetworkConfig(listen="10.0.0.1"))
    assert changes_between(old, replace(old, mapping=MappingConfig())).sinks


def test_http_listens_anew_alone_and_the_folder_of_the_sockets_is_kept() -> None:
    changes = changes_between(OLD, replace(OLD, http=HttpConfig(listen="")))
    assert changes.http and not changes.sinks
    assert changes_between(OLD, replace(OLD, pipeline=PipelineConfig(runtime_dir="/elsewhere"))).refused
