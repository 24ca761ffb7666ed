"""Messages that nobody meant to send, for every way from a message to its line: `python -m tests.fuzz`."""
