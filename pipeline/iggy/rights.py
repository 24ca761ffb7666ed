"""Which rights a user certainly lacks, from the permissions that Iggy tells. Pure."""

from collections.abc import Iterator
from typing import Literal

from apache_iggy import Permissions

#: Of each action, the rights that allow it: everywhere, in a stream, in a topic. Source:
#: `core/metadata/src/permissioner` of apache/iggy, server 0.9.
_ALLOWING = {
    "send_messages": (("manage_streams", "manage_topics", "send_messages"),
                      ("manage_stream", "manage_topics", "send_messages"), ("manage_topic", "send_messages")),
    "poll_messages": (("manage_streams", "read_streams", "manage_topics", "read_topics", "poll_messages"),
                      ("manage_stream", "read_stream", "manage_topics", "read_topics", "poll_messages"),
                      ("manage_topic", "read_topic", "poll_messages")),
}


def lacks_everywhere(permissions: Permissions, action: Literal["send_messages", "poll_messages"]) -> bool:
    """Whether no right at all allows the action, in no stream and no topic."""
    return not any(_grants(permissions, action))


def _grants(permissions: Permissions, action: str) -> Iterator[bool]:
    everywhere, in_stream, in_topic = _ALLOWING[action]
    yield from (getattr(permissions.global_permissions, right) for right in everywhere)
    for stream in (permissions.streams or {}).values():
        yield from (getattr(stream, right) for right in in_stream)
        for topic in (stream.topics or {}).values():
            yield from (getattr(topic, right) for right in in_topic)
