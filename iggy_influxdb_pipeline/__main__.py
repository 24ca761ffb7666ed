"""`python -m iggy_influxdb_pipeline`: the `pipeline` command."""

from iggy_influxdb_pipeline import run

run()
