"""What an answer to a write means: the cases that writing distinguishes."""

from typing import Literal

from msgspec import Struct

from stages.influxdb.retention import Bounds


class Accepted(Struct, frozen=True):
    """Every line is stored."""


class BadLines(Struct, frozen=True):
    """The server identifies the lines that it refuses."""

    #: Its message; it quotes the lines as `unable to parse '<line>': <why>`, unless they are `listed`.
    message: str
    #: The lines that the server lists: (number in the request, from 1, the line or the beginning of it, why).
    listed: tuple[tuple[int, str, str], ...] = ()
    #: The other lines of the request are stored.
    rest_stored: bool = False
    #: Only the first bad line is identified, and nothing is stored.
    first: bool = False
    #: VictoriaMetrics: (the request from the bad line on, why); the line has to be found in what was sent.
    quoted: tuple[bytes, str] | None = None
    #: Reason of the dead letters; "": derived from each line's why.
    reason: str = ""
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class UnlocatedBadLines(Struct, frozen=True):
    """Some lines are refused, and the answer does not identify them."""

    #: type_conflict, outside_retention or refused.
    reason: str
    message: str
    #: How many lines were not stored; None if the answer has no number.
    dropped: int | None = None
    #: The message is certainly about lines. Else the server may refuse the request as a whole.
    about_lines: bool = False
    #: With outside_retention: the times that the database accepts, if they are known.
    bounds: Bounds | None = None
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class TooLarge(Struct, frozen=True):
    """The request's body is over the server's limit."""

    message: str
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class OperatorNeeded(Struct, frozen=True):
    """Nothing can be written until the operator acts: corrects credentials or the URL, creates a bucket."""

    reason: Literal["unauthorized", "not_found", "refused"]
    message: str
    #: What to do; "": as `failures.with_advice` has it for the reason.
    advice: str = ""
    #: HTTP status; 0 where there was no answer.
    status: int = 0


class Retry(Struct, frozen=True):
    """The request is to be sent again later."""

    reason: Literal["rate_limited", "unavailable", "server_error", "timeout", "no_connection"]
    message: str
    #: Retry-After, seconds.
    after: float | None = None
    #: The cause may be a line of this request (a poison line), not the state of the server.
    suspect: bool = False
    #: Number of that line in the request, from 1; 0: unknown.
    line: int = 0
    #: What to do if the failure lasts; "": unknown.
    advice: str = ""
    #: HTTP status; 0 where there was no answer.
    status: int = 0


#: The outcome of one request.
Answer = Accepted | BadLines | UnlocatedBadLines | TooLarge | OperatorNeeded | Retry
