"""When each message is meant to be sent. Pure.

A late send doesn't move the later ones: they keep their times, and so what waited is measured with its wait
(no coordinated omission).
"""

import math
from typing import Literal

from msgspec import Struct

Shape = Literal["steady", "ramp", "burst"]
#: "burst": all messages of a period come within this part of it.
BURST_SECONDS = 1.0
BURST_PART = 0.1


class Schedule(Struct, frozen=True):
    """Intended times, in seconds since the beginning, of messages 0, 1, 2, ..."""

    #: Messages a second: of "ramp" at the end, of "burst" on average. More than 0.
    rate: float
    #: How long it lasts.
    seconds: float
    #: "steady": evenly; "ramp": from 0, linearly more; "burst": each second's messages within its first 0.1 s.
    shape: Shape = "steady"

    @property
    def messages(self) -> int:
        """How many messages there are."""
        return round(self.rate * self.seconds * (0.5 if self.shape == "ramp" else 1))

    def time_of(self, number: int) -> float:
        """When message `number` is meant to be sent."""
        if self.shape == "ramp":
            return math.sqrt(2 * number * self.seconds / self.rate)
        if self.shape == "burst":
            period, part = divmod(number / self.rate, BURST_SECONDS)
            return period * BURST_SECONDS + part * BURST_PART
        return number / self.rate

    def due(self, seconds: float) -> int:
        """How many messages are meant to have been sent `seconds` after the beginning."""
        low, high = 0, self.messages
        while low < high:
            middle = (low + high) // 2
            if self.time_of(middle) <= seconds:
                low = middle + 1
            else:
                high = middle
        return low
