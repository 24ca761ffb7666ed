"""Process of the source direction: queries InfluxDB."""
