"""The messages that `pipeline preview` looks at: from files, standard input, or the ends of a topic's partitions."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pipeline.about import About, header_texts
from pipeline.config.schema import Config, MappingConfig
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from apache_iggy import ReceiveMessage

#: Formats with a message on each line of a file, unless `--each file` is given; the others have one in each file.
LINE_FORMATS: Final = ("json", "text", "line_protocol", "senml", "opentelemetry", "prometheus")
#: Default of `--count`: messages of each partition.
LAST_MESSAGES: Final = 10
#: Largest file, bytes.
MAX_INPUT_BYTES: Final = 100_000_000
_STANDARD_INPUT: Final = "-"


class Sample(NamedTuple):
    """One message."""

    #: Where it is from, such as "line 3" or "partition 0 offset 17".
    label: str
    payload: bytes
    partition: int = 0
    offset: int = 0
    #: Microseconds since 1970.
    timestamp: int = 0
    headers: tuple[str, ...] = ()


class NothingToPreview(PipelineError):
    """There is no message."""


def gather_samples(config: Config, subscription: int, inputs: tuple[str, ...], each: str,
                   last_messages: int, headers: Mapping[str, str] | None = None) -> list[Sample]:
    """The messages in the `inputs` ("-": standard input), then the last ones of each partition of the topic.

    `each`: "line" or "file", what a message is in an input; "": as the mapping's format has it. `headers` are those of
    the messages in the inputs. Raises NothingToPreview, and IggyError.
    """
    topic = config.subscriptions()[subscription]
    samples: list[Sample] = []
    for name in inputs:
        samples += _samples_of_input(name, config.all_sinks()[topic.sink].mapping, each, len(samples), headers or {})
    if last_messages:
        samples += asyncio.run(_samples_of_iggy(config, subscription, last_messages))
    if not samples:
        raise NothingToPreview("there is no message to preview; give some with --input FILE or --from-iggy")
    return samples


def _samples_of_input(name: str, mapping: MappingConfig, each: str, first_offset: int,
                      headers: Mapping[str, str]) -> Iterator[Sample]:
    """All messages of one input have one time, now, as those of one send do."""
    if name == _STANDARD_INPUT and sys.stdin.isatty():
        raise NothingToPreview("there is no message to preview; give some with --input FILE or --from-iggy")
    content = content_of(name)
    now = time.time_ns() // 1_000
    texts = header_texts(mapping.header_names(), About(now, now, dict(headers)))
    file = "" if name == _STANDARD_INPUT else name
    by_line = each == "line" or not each and mapping.format in LINE_FORMATS and mapping.compression == "none"
    if not by_line:
        yield Sample(file or "standard input", content, offset=first_offset, timestamp=now, headers=texts)
        return
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    for index, (number, line) in enumerate(lines):
        yield Sample(f"{file} line {number}".strip(), line, offset=first_offset + index, timestamp=now, headers=texts)


def content_of(name: str) -> bytes:
    """The bytes of a file, or of standard input. Raises NothingToPreview."""
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if name == _STANDARD_INPUT else Path(name).open("rb") as file:
            content = file.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise NothingToPreview(f"{name}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_INPUT_BYTES:
        what = "standard input" if name == _STANDARD_INPUT else name
        raise NothingToPreview(f"{what}: is larger than {MAX_INPUT_BYTES:,} bytes; give a part of it")
    return content


async def _samples_of_iggy(config: Config, subscription: int, count: int) -> list[Sample]:
    """The last `count` messages of each partition of a topic. Raises IggyError."""
    # Imported here, because most previews are of files.
    from pipeline.iggy.headers import header_values
    from stages.ingest.message_times import times_of

    topic = config.subscriptions()[subscription]
    mapping = config.all_sinks()[topic.sink].mapping
    names = mapping.header_names()
    messages = await messages_of_iggy(config, subscription, count)
    times = times_of([message for _, message in messages], mapping)
    return [Sample(f"partition {partition} offset {message.offset()}", message.payload(), partition,
                   message.offset(), timestamp, header_values(message, names) if names else ())
            for (partition, message), timestamp in zip(messages, times, strict=True)]


async def messages_of_iggy(config: Config, subscription: int, count: int) -> list[tuple[int, "ReceiveMessage"]]:
    """The last `count` messages of each partition of a topic, with the partition. Raises IggyError."""
    from pipeline.iggy.connection import IggyConnection

    topic = config.subscriptions()[subscription]
    iggy = IggyConnection(config.iggy)
    await iggy.connect()
    found: list[tuple[int, ReceiveMessage]] = []
    for partition in (await iggy.topic(topic)).partitions:
        if partition.messages_count:
            first = max(0, partition.current_offset - count + 1)
            found += [(partition.id, message) for message in await iggy.poll(topic, partition.id, first, count)]
    return found
