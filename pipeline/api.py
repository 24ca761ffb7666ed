"""For functions that change messages: `mapping.transform = "my_module:my_function"`.

    from pipeline.api import JsonObject, Message

    def my_function(message: JsonObject, about: Message) -> JsonObject | list[JsonObject] | None:
        message["site"] = about.topic.partition(".")[0]
        return message

The function is called for each message, after `[[mapping.steps]]`. It returns the message, several ones, or None for a
message that is left out. An exception makes the message a dead letter. This module changes only with a new minor
version of the package, and the changelog says how.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

#: An object of JSON. Numbers with a point are floats that keep their digits as long as nothing is calculated with them;
#: values that are returned may also be bytes (which become Base64) and times (RFC 3339).
JsonObject = dict[str, Any]


class Message(Struct, frozen=True, kw_only=True):
    """What is known of a message beside its payload. Times are microseconds since 1970, and 0 if they are unknown."""

    #: Name of its stream.
    stream: str
    #: Name of its topic.
    topic: str
    #: Its partition.
    partition: int
    #: Its offset in the partition. Together with stream, topic and partition it identifies the message.
    offset: int
    #: When Iggy received it.
    timestamp: int = 0
    #: When its producer made it, by the producer's clock.
    origin_timestamp: int = 0
    #: Its user headers, as texts.
    headers: dict[str, str] = {}


#: The type of such a function.
Transform = Callable[[JsonObject, Message], JsonObject | list[JsonObject] | None]
