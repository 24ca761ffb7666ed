"""A library for both directions: requests to InfluxDB, the meaning of its answers, and its limits."""
