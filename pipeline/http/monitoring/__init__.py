"""Files for the tools that watch pipelines: a dashboard for Grafana, alert rules for Prometheus."""
