"""The embedded default: a small Iggy and a small InfluxDB on loopback, for tests and trying out; not for production."""
