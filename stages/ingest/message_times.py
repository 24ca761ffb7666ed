"""Iggy's times of messages, as a mapping needs them."""

from collections.abc import Sequence

from apache_iggy import ReceiveMessage

from pipeline.config.schema import MappingConfig


def times_of(messages: Sequence[ReceiveMessage], mapping: MappingConfig) -> list[int]:
    """Microseconds since 1970; 0 for a message without a time of origin, which some clients send."""
    if mapping.timestamp_from != "origin_timestamp":
        return [message.timestamp() for message in messages]
    if mapping.on_missing_timestamp == "iggy_timestamp":
        return [message.origin_timestamp() or message.timestamp() for message in messages]
    return [message.origin_timestamp() for message in messages]
