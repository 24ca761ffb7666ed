"""A small Iggy: enough of the binary protocol 0.11.0 for the `apache-iggy` client."""
