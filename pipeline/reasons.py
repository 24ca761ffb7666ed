"""The reasons why a message becomes a dead letter. Pure.

`docs/reference/writing.rst` has the same table; a test compares them.
"""

from types import MappingProxyType

#: Reason -> what is wrong. Those of decoding and mapping first, then those of the database; `too_large` and
#: `type_conflict` can come from both.
REASONS = MappingProxyType({
    "not_json": "the payload is not valid JSON",
    "not_object": "the payload is JSON, but not an object or an array of objects",
    "not_msgpack": "the payload is not valid MessagePack",
    "not_cbor": "the payload is not valid CBOR",
    "not_csv": "the payload is not CSV, or has no header",
    "not_avro": "the payload does not fit the Avro schema, or is not a container file",
    "not_protobuf": "the payload is not the configured Protobuf message",
    "not_senml": "the payload, or a record of it, is not SenML",
    "not_opentelemetry": "the payload, or a data point of it, is not OTLP/JSON of metrics",
    "not_prometheus": "the payload, or a series of it, is not an answer of Prometheus' query API",
    "not_sparkplug": "the payload, or its MQTT topic, is not Sparkplug B",
    "no_birth": "the alias or type of a metric is not known: the birth of its node or device was not seen",
    "not_text": "the payload is not UTF-8 text",
    "not_line_protocol": "the payload is not line protocol",
    "not_compressed": "the payload is not compressed as configured, or is damaged",
    "too_large": "the payload is larger than max_payload_bytes, or a line is larger than the server accepts",
    "too_deep": "objects or arrays are nested deeper than max_depth",
    "too_many_keys": "a point has more keys than max_keys",
    "too_many_points": "the message has more points than max_points",
    "too_many_values": "the message has more values than max_values",
    "too_expanded": "the points of the message take more bytes than max_expanded_bytes",
    "too_slow": "the message takes more CPU time than max_message_cpu_ms",
    "quarantined": "processes died of this message, or hung on it; please report it",
    "skipped": "an operator has given up the message: pipeline skip",
    "internal_error": "a fault in the pipeline, for this message only; please report it",
    "step_failed": "a step of the mapping cannot be done on the message",
    "bad_bucket": "bucket_template gives a bucket that is not in allowed_buckets",
    "bad_measurement": "the measurement is missing, empty, or not a string",
    "bad_tag": "a tag is an object or an array",
    "bad_field": "a value cannot have its field's type",
    "name_clash": "two values of the message have the same field key or tag key",
    "unwritable": "line protocol cannot represent a name or a value",
    "type_conflict": "the field has another type already",
    "cardinality": "the tag has more distinct values than max_tag_values",
    "no_fields": "no field has a value",
    "missing_timestamp": "the message has no time: timestamp_field is missing or null, or Iggy's time is 0",
    "bad_timestamp": "the time does not fit timestamp_format, or is outside InfluxDB's range",
    "parse_error": "the server cannot parse the line",
    "outside_retention": "the time is older than the server keeps, or too far in the future for it",
    "refused": "the server refuses the line for another reason",
    "server_error": "the server fails on this line, and only on this one",
})
