"""The processes that move data, and the libraries they use.

Iggy to InfluxDB: `ingest`, `encode`, `write`, `dead_letter`. InfluxDB to Iggy: `query`, `convert`, `produce`. Each is a
folder with `process.py`; no stage imports another. Libraries: `mapping`, `influxdb`, `languages`.
"""
