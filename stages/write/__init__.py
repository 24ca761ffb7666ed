"""Process: writes line protocol to InfluxDB."""
