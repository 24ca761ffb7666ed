"""The classes of reasons why a message becomes a dead letter. Pure."""

from types import MappingProxyType

#: Class -> what is wrong. Those of the mapping first, then those of the database; three are of both.
REASONS = MappingProxyType({
    "not_json": "the payload is no JSON",
    "not_object": "the payload is JSON, but no object",
    "not_msgpack": "the payload is no MessagePack",
    "not_csv": "the payload is no CSV, or has no header",
    "not_avro": "the payload does not fit the Avro schema, or is no container file",
    "not_protobuf": "the payload is not the configured Protobuf message",
    "not_text": "the payload is no UTF-8 text",
    "not_line_protocol": "the payload is no line protocol",
    "not_compressed": "the payload is not compressed as configured, or is damaged",
    "too_large": "larger than max_payload_bytes; or a line larger than the server takes",
    "too_deep": "objects or arrays within each other, deeper than can be read",
    "too_many_keys": "more keys than max_keys",
    "too_many_points": "more points than max_points",
    "too_many_values": "more values than max_values",
    "too_expanded": "the points of one message take more bytes than max_expanded_bytes",
    "internal_error": "a fault in the pipeline, at this message alone; please report it",
    "bad_bucket": "bucket_template gives a bucket that is not in allowed_buckets",
    "bad_measurement": "the measurement is missing, empty, or no text",
    "bad_tag": "a tag is an object or an array",
    "bad_field": "a value cannot have its field's type",
    "name_clash": "two values of the message have one field key or tag key",
    "unwritable": "line protocol cannot hold a name or a value",
    "type_conflict": "the field has another type already",
    "cardinality": "the tag has more values than max_tag_values",
    "no_fields": "no field has a value",
    "missing_timestamp": "timestamp_field is missing or null",
    "bad_timestamp": "timestamp_field is not what timestamp_format says",
    "parse_error": "the server cannot parse the line",
    "outside_retention": "older than the server keeps",
    "refused": "the server refuses the line in other words",
    "server_error": "the server fails at this line alone",
})
