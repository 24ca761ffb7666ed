"""What the switch does to a frame on its way from one host to another. Pure: the caller gives the random numbers."""

import random
from collections.abc import Iterable

from msgspec import Struct

#: Stands for every host.
ANY = "*"


class LinkRule(Struct, frozen=True, kw_only=True):
    """What happens to the frames from `source` to `destination`, which are names of hosts or `ANY`."""

    source: str = ANY
    destination: str = ANY
    #: Share of the frames that are lost, 0 to 1. 1: the link is cut in this direction.
    loss: float = 0.0
    #: How much later each frame arrives, seconds.
    delay_seconds: float = 0.0

    def applies(self, source: str, destination: str) -> bool:
        """Whether it is about frames on this way."""
        return self.source in (ANY, source) and self.destination in (ANY, destination)


def cut(source: str, destination: str = ANY) -> tuple[LinkRule, LinkRule]:
    """Nothing passes between two hosts, in neither direction."""
    return (LinkRule(source=source, destination=destination, loss=1.0),
            LinkRule(source=destination, destination=source, loss=1.0))


def around(host: str, *, loss: float = 0.0, delay_seconds: float = 0.0) -> tuple[LinkRule, LinkRule]:
    """The cable of one host is bad, in both directions."""
    return (LinkRule(source=host, loss=loss, delay_seconds=delay_seconds),
            LinkRule(destination=host, loss=loss, delay_seconds=delay_seconds))


def delay_of(rules: Iterable[LinkRule], source: str, destination: str, rng: random.Random) -> float | None:
    """How much later a frame arrives, seconds; None: it is lost. Delays of several rules add up."""
    delay = 0.0
    for rule in rules:
        if rule.applies(source, destination):
            if rule.loss and rng.random() < rule.loss:
                return None
            delay += rule.delay_seconds
    return delay
