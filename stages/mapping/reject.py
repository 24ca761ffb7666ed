"""Errors of messages that cannot be written."""

from pathlib import PurePath

from stages.mapping.cpu_limit import TooSlow


class Reject(Exception):
    """One message, or a part of it, cannot become a point: the reason (`pipeline.reasons`) and a detail for the
    user."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Dropped(Exception):
    """One message is left out on purpose: a rule says so, or it has no field and `on_no_fields` is "drop"."""


def failure(error: BaseException) -> Reject:
    """The Reject for a message on which code of the pipeline or of a library raised any error."""
    if isinstance(error, Reject):
        return error
    if isinstance(error, TooSlow):
        return Reject("too_slow", str(error) or "takes more CPU time than max_message_cpu_ms")
    if isinstance(error, RecursionError):
        return Reject("too_deep", "objects or arrays are nested too deep to be parsed")
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f" at {PurePath(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at is not None else ""
    return Reject("internal_error", f"{type(error).__name__}{where}: {shown(str(error))}")


def shown(text: str) -> str:
    """A value's text, cut for a log line."""
    return text if len(text) <= 60 else text[:57] + "..."


def and_more(count: int) -> str:
    """The suffix of the first of `count` faults of one message; "" for a single one."""
    return f" (and {count - 1} more in this message)" if count > 1 else ""
