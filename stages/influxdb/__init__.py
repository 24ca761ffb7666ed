"""What talks to InfluxDB: endpoints, and what its answers mean."""
