"""Code generated for batches of messages of one shape."""
