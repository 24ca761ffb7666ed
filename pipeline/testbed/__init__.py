"""What the product is tried with: sandbox servers, load, benchmarks, fault injection."""
