"""The configuration: its schema, reading a file, and what is checked beyond the schema."""
