"""The types that a field of InfluxDB can have."""

from typing import Literal

FieldType = Literal["float", "integer", "unsigned", "string", "boolean"]
