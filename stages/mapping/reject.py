"""Why a message, or a value of it, cannot be written."""


class Reject(Exception):
    """One message cannot become a point: the reason's class and what was wrong, for a person.

    The classes: not_json, not_object, not_msgpack, not_csv, not_avro, not_protobuf, not_text, not_line_protocol,
    not_compressed, too_large, bad_bucket, bad_measurement, bad_tag, bad_field, unwritable, type_conflict,
    cardinality, no_fields, missing_timestamp, bad_timestamp.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Dropped(Exception):
    """One message is left out on purpose: a rule says so, or it has no field and `on_no_fields` is "drop"."""


def shown(text: str) -> str:
    """A value's text cut to what a log line can take."""
    return text if len(text) <= 60 else text[:57] + "..."
