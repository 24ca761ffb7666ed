"""The configuration: its schema, reading a file, and checks beyond the schema."""
