"""Messages for tests and benchmarks, and sending them to Iggy."""

import asyncio
from collections.abc import Callable

from pipeline.config.schema import IggyConfig
from pipeline.iggy.connection import IggyConnection
from pipeline.testbed.harness.processes import DEVICES, FIRST_TIME_MS, SEND_MESSAGES

STREAM, TOPIC = "telemetry", "sensors"


def telemetry(index: int) -> bytes:
    """Message number `index`: about 140 bytes of JSON; no two have the same device and time."""
    device, tick = index % DEVICES, index // DEVICES
    wave = (tick * 7 + device * 13) % 200
    return (b'{"site":"site-%d","device":"dev-%04d","temperature":%d.%d,"humidity":%d.%d,"pressure":%d.25,"battery":%d,'
            b'"ok":%s,"ts":%d}' % (device % 5, device, 18 + wave // 20, wave % 10, 40 + wave // 10, wave % 7,
                                   1000 + wave % 30, 100 - tick % 90, b"false" if wave == 0 else b"true",
                                   FIRST_TIME_MS + tick * 1000))


async def produce(address: str, messages: int, partitions: int, stream: str = STREAM,
                  make: Callable[[int], bytes] = telemetry) -> None:
    """Creates the stream and topic, and sends `messages` to its partitions in turn. Raises IggyError.

    `make` gives message number n.
    """
    iggy = await _connected(address)
    await iggy.make_topic(stream, TOPIC, partitions)
    for batch, first in enumerate(range(0, messages, SEND_MESSAGES)):
        payloads = [make(i) for i in range(first, min(first + SEND_MESSAGES, messages))]
        await iggy.send(stream, TOPIC, payloads, batch % partitions)


def produce_now(address: str, messages: int, partitions: int, stream: str = STREAM,
                make: Callable[[int], bytes] = telemetry) -> None:
    """`produce`, to its end."""
    asyncio.run(produce(address, messages, partitions, stream, make))


def delete_stream(address: str, stream: str) -> None:
    """Deletes a stream that `produce` made. Raises IggyError."""
    async def delete() -> None:
        await (await _connected(address)).client.delete_stream(stream)

    asyncio.run(delete())


async def _connected(address: str) -> IggyConnection:
    iggy = IggyConnection(IggyConfig(address=address, username="iggy", password="iggy"))
    await iggy.connect()
    return iggy
