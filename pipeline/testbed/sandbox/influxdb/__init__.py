"""A small InfluxDB that answers as recorded 1.x, 2.x and 3 servers do."""
