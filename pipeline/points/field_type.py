"""The types that a field of InfluxDB can have."""

from typing import Literal

Kind = Literal["float", "integer", "unsigned", "string", "boolean"]
