"""What to do about points that overwrite others, in words."""

from pipeline.config.schema import SinkConfig


def overwriting_advice(sink: SinkConfig) -> str:
    """Why a point can take another's place with this sink's configuration, and what to change there."""
    precision = sink.influxdb.precision
    finer = f'[influxdb] precision = "ns" (now "{precision}"), ' if precision != "ns" else ""
    return ("InfluxDB keeps one point of a measurement, tag set and time, and of equal fields the later value; give "
            f'{finer}another timestamp_from (now "{sink.mapping.timestamp_from}"), or a tag that tells them apart')
