"""Values of InfluxDB's data model that both directions share. No I/O."""
