"""Why a message, or a value of it, cannot be written."""

from pathlib import PurePath

from stages.mapping.cpu_limit import TooSlow


class Reject(Exception):
    """One message cannot become a point: the reason's class and what was wrong, for a person.

    The classes: not_json, not_object, not_msgpack, not_csv, not_avro, not_protobuf, not_text, not_line_protocol,
    not_compressed, too_large, bad_bucket, bad_measurement, bad_tag, bad_field, name_clash, unwritable,
    type_conflict, cardinality, no_fields, missing_timestamp, bad_timestamp, internal_error; and of
    `limits.TooComplex`: too_deep, too_many_keys, too_many_points, too_many_values, too_expanded.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Dropped(Exception):
    """One message is left out on purpose: a rule says so, or it has no field and `on_no_fields` is "drop"."""


def failure(error: BaseException) -> Reject:
    """What becomes of a message on which code failed with something else than a Reject: ours, or a library's."""
    if isinstance(error, Reject):
        return error
    if isinstance(error, TooSlow):
        return Reject("too_slow", "takes more CPU time than max_message_cpu_ms")
    if isinstance(error, RecursionError):
        return Reject("too_deep", "objects or arrays within each other, deeper than can be read")
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f" at {PurePath(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at is not None else ""
    return Reject("internal_error", f"{type(error).__name__}{where}: {shown(str(error))}")


def shown(text: str) -> str:
    """A value's text cut to what a log line can take."""
    return text if len(text) <= 60 else text[:57] + "..."


def and_more(count: int) -> str:
    """What follows the first of so many faults of one message."""
    return f" (and {count - 1} more in this message)" if count > 1 else ""
