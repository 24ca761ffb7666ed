"""Process: turns batches of messages into line protocol."""
