"""Connector between Apache Iggy and InfluxDB: what every process of the pipeline shares."""

__version__ = "0.1.0"
