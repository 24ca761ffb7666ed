"""Advice about points that overwrite other points."""

from pipeline.config.schema import SinkConfig


def overwriting_advice(sink: SinkConfig) -> str:
    """Why points overwrite each other with this sink's configuration, and what to change."""
    precision = sink.influxdb.precision
    finer = f'[influxdb] precision = "ns" (now "{precision}"), ' if precision != "ns" else ""
    return ("InfluxDB keeps one point for each measurement, tag set and time, and the later value of each field; set "
            f'{finer}another timestamp_from (now "{sink.mapping.timestamp_from}"), or a tag that distinguishes them')
