"""From an Iggy message to lines of InfluxDB line protocol.

Without I/O, except that `formats.avro` and `formats.protobuf` read their schema files when an encoder is made.
"""
