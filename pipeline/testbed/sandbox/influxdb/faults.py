"""Rules by which the sandbox InfluxDB fails: an ordered list, given as JSON. No sockets.

Rules act on writes, those with `query` on queries instead. The first rule of the list that has requests left and whose
`match` is in the body acts; a rule that is spent stays in the list, with its `hits`. `refuse` and `token` act once,
when the rules are set.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from pipeline.errors import PipelineError
from pipeline.testbed.sandbox.influxdb.http1 import Break

Status = Annotated[int, Meta(ge=100, le=599)]
Seconds = Annotated[float, Meta(ge=0, le=3_600)]


class Rule(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One way to fail. With `status`, `sequence`, `hang`, `endless` or an early `reset` nothing is stored."""

    #: Answer this; 2xx lets the write go its normal way.
    status: Status | None = None
    #: Body of the answer; the flavour's own for that status when empty.
    body: str = ""
    headers: dict[str, str] = {}
    #: Statuses of one request after the other, each as `status`; then the rule is spent.
    sequence: tuple[Status, ...] = ()
    #: Store as ever, but answer so much later.
    delay_seconds: Seconds = 0.0
    #: Never answer.
    hang: bool = False
    #: Answer 200 with a body that does not end until the client closes the connection.
    endless: bool = False
    #: Answer only so many bytes of a query's answer, and end it as if that were all; negative: without so many at the
    #: end. As a proxy does that loses its server.
    cut: int | None = None
    #: Break the connection off with RST: "before" the body is read, in its "middle", or "after" the points are stored.
    #: With `match`, "before" and "middle" come when the body has been read, too, but before anything is stored.
    reset: Literal["", "before", "middle", "after"] = ""
    #: Act on queries, and not on writes. A `reset` then breaks the connection off instead of an answer.
    query: bool = False
    #: Only bodies (after gunzip) with this text in them.
    match: str = ""
    #: How many requests; null: all, until the rule is removed.
    times: Annotated[int, Meta(ge=0)] | None = None
    #: At once: drop all connections and don't listen for so many seconds.
    refuse: Seconds = 0.0
    #: At once: this is the only token (InfluxDB 1: password) that is accepted.
    token: str = ""
    #: Requests it acted on so far. Not for giving.
    hits: int = 0

    @property
    def acts(self) -> bool:
        """Whether it has something to do with requests."""
        return bool(self.status or self.sequence or self.delay_seconds or self.hang or self.endless or self.reset
                    or self.cut is not None)

    @property
    def left(self) -> bool:
        """Whether it acts, and on one more request."""
        limits = [limit for limit in (self.times, len(self.sequence) or None) if limit is not None]
        return self.acts and all(self.hits < limit for limit in limits)

    def hit(self) -> int | None:
        """Counts a request; the status for it, or None."""
        status = self.sequence[self.hits] if self.sequence else self.status
        self.hits += 1
        return status


class Faults:
    """The rules in force."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules

    def at_head(self) -> tuple[Rule | None, Break]:
        """The rule for a request without its body, as far as it does not depend on it, and when to break off."""
        rule = next((rule for rule in self.rules if rule.left and not rule.query), None)
        if rule is not None and not rule.match and rule.reset in ("before", "middle"):
            rule.hit()
            return rule, "before" if rule.reset == "before" else "middle"
        return None, ""

    def at_body(self, body: bytes) -> Rule | None:
        """The rule for a whole request, if any. It is for the caller to `hit` it."""
        return next((rule for rule in self.rules if rule.left and not rule.query and rule.match.encode() in body),
                    None)

    def at_query(self, body: bytes) -> Rule | None:
        """The rule for a query, if any. It is for the caller to `hit` it."""
        return next((rule for rule in self.rules if rule.left and rule.query and rule.match.encode() in body), None)

    @property
    def need_body(self) -> bool:
        """Whether a rule wants to see the body uncompressed."""
        return any(rule.left and rule.match for rule in self.rules)


def parse_rules(text: bytes | str) -> list[Rule]:
    """Parses a rule or a list of rules. Raises PipelineError with the mistake."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        value = msgspec.json.decode(text)
        rules = msgspec.convert(value if isinstance(value, list) else [value], list[Rule])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise PipelineError(f"fault {text}: {error}; give a JSON object such as "
                            '{"status": 503, "times": 3}') from None
    for rule in rules:
        if not (rule.acts or rule.refuse or rule.token):
            raise PipelineError(f"fault {text}: does nothing; give one of status, sequence, delay_seconds, hang, "
                                "cut, reset, refuse, token")
    return rules
