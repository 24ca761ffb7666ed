"""Process: stores messages that cannot be written."""
