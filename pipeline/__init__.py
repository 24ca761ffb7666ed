"""Connector between Apache Iggy and InfluxDB: commands, processes that coordinate, and what all processes share."""

__version__ = "0.1.0"
