"""The connection to Iggy, on the `apache-iggy` client."""
