"""Requests of Iggy's binary protocol 0.11.0 for which the client has no call."""

import itertools
import struct
from collections.abc import Mapping
from types import MappingProxyType

from apache_iggy import IggyClient

GET_ME = 20
POLL_MESSAGES_CODE = 100
GET_CONSUMER_OFFSET = 120
STORE_CONSUMER_OFFSET = 121
DELETE_CONSUMER_OFFSET = 122
CREATE_TOPIC = 302
SYNC_CONSUMER_GROUP = 606
#: Codes of the kinds of consumer.
SINGLE, GROUP = b"\x01", b"\x02"
#: Code of a string in a topic's options.
OPTION_STRING = 2
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


def identifier(name: str) -> bytes:
    """A stream, topic or consumer by name: `[2][length][UTF-8 name]`. Source: Iggy's binary protocol 0.11.0."""
    encoded = name.encode()
    return bytes((2, len(encoded))) + encoded


def last_of_partition(consumer: str, stream: str, topic: str, partition: int) -> bytes:
    """The body of a poll of the last message of a partition that commits nothing. Source: PollMessages, code 100.

    `[kind][consumer][stream][topic][1][partition u32][strategy: 4, last][value u64][count u32][commit u8]`
    """
    return (SINGLE + identifier(consumer) + identifier(stream) + identifier(topic)
            + struct.pack("<BIBQIB", 1, partition, 4, 0, 1, 0))


async def create_topic(client: IggyClient, stream: str, topic: str, partitions: int,
                       options: Mapping[str, str] = NO_OPTIONS) -> None:
    """Creates a topic with the server's defaults, except for `options`. Raises RuntimeError.

    `IggyClient.create_topic` 0.9.0 sends option keys that the server 0.9.0 rejects. Source: CreateTopic, code 302;
    an option is `[kind: 2, a string][length u32][key][kind: 2][length u32][value]`.
    """
    name = topic.encode()
    body = identifier(stream) + struct.pack("<IB", partitions, len(name)) + name
    for text in itertools.chain.from_iterable(options.items()):
        body += struct.pack("<BI", OPTION_STRING, len(text)) + text.encode()
    await client.send_binary_request(CREATE_TOPIC, body)
