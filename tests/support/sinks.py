"""What pipeline tests share: a sandbox InfluxDB on a thread, a running `pipeline start`, messages to send."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import requests
from apache_iggy import AutoLogin, Consumer, IggyClient, Partitioning, PollingStrategy, SendMessage, TcpConfig

from pipeline.config.iggy_schema import IggyConfig
from pipeline.testbed.harness.configurations import SinkConfiguration
from pipeline.testbed.harness.runs import NOTHING, SinkRun
from pipeline.testbed.sandbox.influxdb.answers import Flavour
from tests.support.iggy_clients import as_user
from tests.support.iggy_servers import RunningIggy
from tests.support.transports import by_transport

TOPIC = "readings"
#: `[influxdb]` for each flavour of the sandbox.
TARGETS: dict[str, str] = {
    "v1": 'version = "v1"\ndatabase = "sandbox"',
    "v2": 'version = "v2"\norg = "sandbox"\nbucket = "sandbox"\ntoken = "sandbox-token"',
    "v3": 'version = "v3"\ndatabase = "sandbox"\ntoken = "sandbox-token"',
    "questdb": 'database = "sandbox"',
}
#: Where tags and the time of `message` are; what formats without paths do not have.
PATHS = """
tag_fields = ["device"]
timestamp_from = "field"
timestamp_field = "ts"
timestamp_format = "epoch_ns"
"""
#: Small batches, of `[pipeline]`.
BATCHES = "batch_size = 500\nflush_interval_ms = 20"


def configuration(iggy: str, stream: str, influxdb: str, target: str, folder: Path, *, topic: str = "",
                  paths: str = PATHS, mapping: str = "", options: str = "", batches: str = BATCHES,
                  dead_letters: str = "", iggy_options: str = "", http: str = 'listen = ""') -> str:
    """A pipeline's file. `iggy` is host:port, `influxdb` a URL or the line `urls = ...`, `folder` that of the sockets.

    The rest are lines of tables: `target` of `[influxdb]`; `paths` and `mapping`; `options` and `batches` of
    `[pipeline]`; `topic` of `[[topics]]`; `http` of `[http]`.
    """
    url = influxdb if "=" in influxdb else f'url = "{influxdb}"'
    return SinkConfiguration(
        stream=stream, topic=TOPIC, topic_options=topic, mapping=f"{paths}\n{mapping}", dead_letters=dead_letters,
        influxdb=f"{url}\nretry_backoff_ms = 20\nretry_backoff_max_ms = 200\n{target}",
        options=f"{batches}\n{options}", iggy_options=iggy_options, http=http).text(iggy, folder)


class SandboxInflux:
    """A running sandbox InfluxDB, and what tests ask of it."""

    def __init__(self, url: str, flavour: Flavour = "v2", flight_url: str = "") -> None:
        self.url = url
        self.flavour = flavour
        self.flight_url = flight_url

    def count(self) -> int:
        """Points stored."""
        return int(requests.get(f"{self.url}/sandbox/count?bucket=sandbox", timeout=60).json()["points"])

    def points(self) -> list[dict[str, Any]]:
        """All points, sorted."""
        found: list[dict[str, Any]] = requests.get(f"{self.url}/sandbox/points?bucket=sandbox&limit=10000000",
                                                   timeout=60).json()
        return found

    def stats(self) -> dict[str, Any]:
        """Requests, bytes and statuses so far."""
        found: dict[str, Any] = requests.get(f"{self.url}/sandbox/stats", timeout=60).json()
        return found

    def fail(self, *rules: dict[str, Any]) -> None:
        """Makes writes fail as `pipeline.testbed.sandbox.influxdb.faults` has it; no rule: all works."""
        requests.put(f"{self.url}/sandbox/faults", data=json.dumps(list(rules)), timeout=60).raise_for_status()

    def stall_after(self, writes: int) -> None:
        """Takes so many more writes, one each 20 ms for a sender, and answers 503 from then on: until `fail()`.

        For what has to happen in the middle of the work, however fast or slow the machine is. Wait for stored points
        (`count`), not for acknowledged ones: a batch stored before an older one of its partition is written again.
        """
        self.fail({"delay_seconds": 0.02, "times": writes}, {"status": 503})


class Sink(SinkRun):
    """A running pipeline of one topic."""

    def __init__(self, folder: Path, iggy: str, stream: str, influxdb: str, target: str, *, config: str = "",
                 arguments: Iterable[str] = (), environ: Mapping[str, str] = NOTHING, **options: str) -> None:
        """`options` are those of `configuration`. `config` is a text with the names of all these in braces."""
        run, iggy = folder / "run", by_transport(iggy)
        places = {"iggy": iggy, "stream": stream, "influxdb": influxdb, "target": target, "folder": run, **options}
        text = config.format_map(defaultdict(str, places)) if config else \
            configuration(iggy, stream, influxdb, target, run, **options)
        super().__init__(folder, text, ["--workers", "2", *arguments], environ)
        self.start()


def message(number: int, **more: Any) -> bytes:
    """Message `number`: a point of its own."""
    return json.dumps({"device": f"d{number % 7}", "value": number, "ok": number % 2 == 0, "ts": 1_000 + number,
                       **more}).encode()


def point(number: int) -> dict[str, Any]:
    """What `message(number)` is stored as."""
    return {"measurement": TOPIC, "tags": [["device", f"d{number % 7}"]],
            "fields": {"value": float(number), "ok": number % 2 == 0}, "time": 1_000 + number}


def numbers(points: list[dict[str, Any]]) -> list[int]:
    """The numbers of the messages that points come from, sorted; and that they are stored as they should be."""
    found = sorted(p["time"] - 1_000 for p in points)
    for p in points:
        assert {key: p[key] for key in ("measurement", "tags", "fields", "time")} == point(p["time"] - 1_000)
    return found


def send(address: str, stream: str, payloads: list[bytes], partitions: int = 1, at_once: int = 500,
         topic: str = TOPIC) -> None:
    """Sends messages to the partitions in turn, so many at a time."""
    async def all_of_them() -> None:
        client = await _client(address)
        for batch, first in enumerate(range(0, len(payloads), at_once)):
            await client.send_messages(stream, topic, Partitioning.partition_id(batch % partitions),
                                       [SendMessage(payload) for payload in payloads[first:first + at_once]])

    asyncio.run(all_of_them())


def read_topic(address: str, stream: str, topic: str) -> list[bytes]:
    """All payloads of partition 0 of a topic; none when it is not there."""
    async def all_of_them() -> list[bytes]:
        client = await _client(address)
        if await client.get_topic(stream, topic) is None:
            return []
        polled = await client.poll_messages(
            stream, topic, consumer=Consumer.Single("test"), polling_strategy=PollingStrategy.First(), count=100_000,
            auto_commit=False, partition_id=0)
        return [message.payload() for message in polled]

    return asyncio.run(all_of_them())


async def _client(address: str) -> IggyClient:
    client = IggyClient(TcpConfig(server_address=address, auto_login=AutoLogin.username_password("iggy", "iggy")))
    await client.connect()
    return client


def check_that_only_bad_ones_are_rejected(iggy: RunningIggy, stream: str, folder: Path, url: str, target: str) -> None:
    """Of 6,000 messages the 5,000 good ones are written to a server; 1,000 have another type than their field has."""
    iggy.create_topic(stream, TOPIC, 2)
    send(iggy.address, stream, [message(n) for n in range(3_000)], 2)
    sink = Sink(folder, iggy.address, stream, url, target)
    try:
        sink.settles(3_000)
        send(iggy.address, stream, [message(n) if n % 3 else message(n, value="text") for n in range(3_000, 6_000)], 2)
        status = sink.settles(6_000)
        assert (status.written, status.rejected) == (5_000, 1_000)
        assert sink.stop() == 0
    finally:
        sink.close()


def send_with(config: IggyConfig, stream: str, topic: str, payloads: list[bytes], partition: int = 0) -> None:
    """Sends messages to one partition, logged in as `config` says."""
    async def all_of_them(client: IggyClient) -> None:
        messages = [SendMessage(payload) for payload in payloads]
        await client.send_messages(stream, topic, Partitioning.partition_id(partition), messages)

    as_user(config, all_of_them)
