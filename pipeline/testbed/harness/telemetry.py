"""Messages for tests and benchmarks, and sending them to Iggy."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import Precision
from pipeline.iggy.connection import IggyConnection
from pipeline.testbed.harness.configurations import SANDBOX_V2, SinkConfiguration
from pipeline.testbed.harness.runs import SinkRun

STREAM, TOPIC = "telemetry", "sensors"
#: Messages of one send.
SEND_MESSAGES = 1_000
DEVICES = 40
#: Time of the first message, milliseconds since 1970.
FIRST_TIME_MS = 1_700_000_000_000
#: `[mapping]` of these messages.
MAPPING = """
tag_fields = ["site", "device"]
field_strategy = "explicit"
field_names = ["temperature", "humidity", "pressure", "battery", "ok"]
timestamp_from = "field"
timestamp_field = "ts"
timestamp_format = "epoch_ms"
"""


def sink_of(url: str, influxdb: str = SANDBOX_V2, stream: str = STREAM, options: str = "",
            mapping: str = MAPPING, precision: Precision = "ms") -> SinkConfiguration:
    """A pipeline for these messages. `influxdb`: lines of `[influxdb]`; `options`: of `[pipeline]`."""
    return SinkConfiguration(stream=stream, topic=TOPIC, mapping=mapping, options=options,
                             influxdb=f'url = "{url}"\nprecision = "{precision}"\n{influxdb}')


def sink_run(folder: Path, iggy: str, config: SinkConfiguration) -> SinkRun:
    """A pipeline that reads them from the Iggy at host:port."""
    return SinkRun(folder, config.text(iggy, folder / "run"))


def telemetry(index: int) -> bytes:
    """Message number `index`: about 140 bytes of JSON; no two have the same device and time."""
    device, tick = index % DEVICES, index // DEVICES
    wave = (tick * 7 + device * 13) % 200
    return (b'{"site":"site-%d","device":"dev-%04d","temperature":%d.%d,"humidity":%d.%d,"pressure":%d.25,"battery":%d,'
            b'"ok":%s,"ts":%d}' % (device % 5, device, 18 + wave // 20, wave % 10, 40 + wave // 10, wave % 7,
                                   1000 + wave % 30, 100 - tick % 90, b"false" if wave == 0 else b"true",
                                   FIRST_TIME_MS + tick * 1000))


async def produce(iggy_at: str | IggyConfig, messages: int, partitions: int, stream: str = STREAM,
                  make: Callable[[int], bytes] = telemetry) -> None:
    """Creates the stream and topic, and sends `messages` to its partitions in turn. Raises IggyError.

    `iggy_at`: host:port of a server with user and password `iggy`, or how it is reached. `make` gives message number n.
    """
    iggy = await _connected(iggy_at)
    await iggy.make_topic(stream, TOPIC, partitions)
    for batch, first in enumerate(range(0, messages, SEND_MESSAGES)):
        payloads = [make(i) for i in range(first, min(first + SEND_MESSAGES, messages))]
        await iggy.send(stream, TOPIC, payloads, batch % partitions)


def produce_now(iggy_at: str | IggyConfig, messages: int, partitions: int, stream: str = STREAM,
                make: Callable[[int], bytes] = telemetry) -> None:
    """`produce`, to its end."""
    asyncio.run(produce(iggy_at, messages, partitions, stream, make))


def delete_stream(iggy_at: str | IggyConfig, stream: str) -> None:
    """Deletes a stream that `produce` made. Raises IggyError."""
    async def delete() -> None:
        await (await _connected(iggy_at)).client.delete_stream(stream)

    asyncio.run(delete())


async def _connected(iggy_at: str | IggyConfig) -> IggyConnection:
    iggy = IggyConnection(IggyConfig(address=iggy_at) if isinstance(iggy_at, str) else iggy_at)
    await iggy.connect()
    return iggy
