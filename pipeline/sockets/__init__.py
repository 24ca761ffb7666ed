"""ZeroMQ endpoints, control links and CURVE keys."""
