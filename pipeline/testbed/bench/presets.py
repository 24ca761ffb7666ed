"""What a message of each preset costs: the first case of the preset, with other times, gzip included."""

import base64
import re
import time
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from pipeline.about import About, header_texts
from pipeline.compression import compress
from pipeline.config.presets import preset, preset_names
from pipeline.config.schema import CaseConfig, MappingConfig
from pipeline.errors import PipelineError
from pipeline.supervisor.malloc import keep_freed_memory

#: Messages of a batch, batches that the encoder learns from, and batches that are timed.
MESSAGES: Final = 1_000
LEARNED: Final = 3
BATCHES: Final = 5
#: Times in a message: numbers since 1970, and the time of day of a text.
_TIMES: Final = re.compile(rb"(?<![0-9])1[0-9]{9,18}(?![0-9])|T[0-9]{2}:[0-9]{2}:[0-9]{2}")
_FIRST_US: Final = 1_700_000_000_000_000


class Cost(Struct, frozen=True):
    """What a message of one preset costs."""

    preset: str
    #: Bytes of the message.
    bytes: int
    #: Points and fields that it becomes.
    points: float
    #: Microseconds of CPU.
    us: float


def measure(messages: int = MESSAGES) -> Iterator[Cost]:
    """Measures each preset, in batches of so many messages. Raises PipelineError where one rejects its own case."""
    keep_freed_memory()
    for name in preset_names():
        yield _cost(name, messages)


def _cost(name: str, messages: int) -> Cost:
    from stages.mapping.encoder import BatchOrigin, Encoder

    content = preset(name)
    case = msgspec.convert(content["tests"][0], CaseConfig)
    encoder = Encoder(msgspec.convert(content["mapping"], MappingConfig), "ns", "stream", "sensors")
    payload = base64.b64decode(case.message_base64) if case.message_base64 else (
        case.message.encode() if isinstance(case.message, str) else msgspec.json.encode(case.message))
    names = encoder.rules.config.header_names()
    seconds, points = [], 0
    for batch in range(LEARNED + BATCHES):
        numbers = range(batch * messages, (batch + 1) * messages)
        payloads = [_later(payload, number) for number in numbers]
        times = [_FIRST_US + number for number in numbers]
        headers = [header_texts(names, About(at, at, _of_device(case.headers, number)))
                   for number, at in zip(numbers, times, strict=True)] if names else None
        origin = BatchOrigin(first=numbers[0], timestamps=times, arrival=times[-1], headers=headers)
        began = time.process_time()
        encoded = encoder.encode(payloads, origin)
        for lines in encoded.groups:
            compress(lines.body)
        seconds.append(time.process_time() - began)
        points = encoded.points
        if encoded.rejects or not points:
            raise PipelineError(f"preset {name}: {encoded.rejects[:1] or 'no points'}")
    return Cost(name, len(payload), points / messages, round(min(seconds[LEARNED:]) / messages * 1e6, 1))


def _later(payload: bytes, number: int) -> bytes:
    """The message at another time."""
    def later(match: re.Match[bytes]) -> bytes:
        if match[0][:1] == b"T":
            return b"T%02d:%02d:%02d" % (number // 3600 % 24, number // 60 % 60, number % 60)
        return b"%d" % (int(match[0]) + number)

    return _TIMES.sub(later, payload)


def _of_device(headers: dict[str, str], number: int) -> dict[str, str]:
    """The headers of one of many devices, where a topic of MQTT names it."""
    topic = headers.get("mqtt-topic", "")
    parts = topic.split("/")
    if len(parts) > 3 and parts[0].startswith("spBv"):
        parts[3] = f"edge{number}"
    return headers | ({"mqtt-topic": "/".join(parts)} if topic else {})


def text(costs: list[Cost]) -> str:
    """For people."""
    return "\n".join([f"{'':20} {'bytes':>6} {'points':>7} {'us':>6}", *[
        f"{cost.preset:20} {cost.bytes:6} {cost.points:7.1f} {cost.us:6.1f}" for cost in costs]])
