"""From an Iggy message to a line of InfluxDB line protocol. Pure: no I/O in this package."""
