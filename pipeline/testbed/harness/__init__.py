"""Running pipelines and servers from tests, benchmarks and fault injection."""
