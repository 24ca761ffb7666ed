"""What tests of the source direction share: a running `pipeline start` with sources, and what has come to Iggy."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import requests
from apache_iggy import AutoLogin, Consumer, IggyClient, PollingStrategy, ReceiveMessage, TcpConfig

from pipeline.testbed.harness.configurations import SourceConfiguration
from pipeline.testbed.harness.runs import NOTHING, SourceRun
from tests.support.sinks import SandboxInflux
from tests.support.transports import by_transport

#: Time of the first point of `lines_of`.
FIRST_TIME = 1_700_000_000_000_000_000
EXAMPLES = Path(__file__).parents[2] / "configs"
#: Of `[[sources]]`: nothing waits for the intervals that are right for a database in use.
OFTEN = """poll_interval_ms = 100
idle_interval_ms = 1_000
buffer_duration_ms = 0
discovery_interval_ms = 500"""


def soon() -> int:
    """A time that no window has passed when a point of it is stored, which takes a moment: `OFTEN` waits for none."""
    return time.time_ns() + 2 * 10**9


class Source(SourceRun):
    """A running pipeline of one source."""

    def __init__(self, folder: Path, iggy: str, url: str, influxdb: str, stream: str, *, source: str = "",
                 state: str = "", output: str = "", options: str = "", arguments: Iterable[str] = (),
                 start: bool = True, config: str = "", environ: Mapping[str, str] = NOTHING) -> None:
        """Lines of tables: `influxdb` of `[sources.influxdb]`, `source` of `[[sources]]`, `output` of
        `[sources.output]`, `options` of `[pipeline]`; `state` says where the state is, in a file unless given.

        `config` takes the place of all these.
        """
        self.iggy = iggy
        self.stream = stream
        self.state_file = folder / "state.json"
        state = state or f'state_file = "{self.state_file}"'
        text = config or SourceConfiguration(
            stream=stream, output=f'topic = "out"\n{output}', options=f"workers = 2\n{options}",
            influxdb=f'url = "{url}"\nretry_backoff_ms = 20\nretry_backoff_max_ms = 200\n{influxdb}',
            source=f"{state}\n{OFTEN}\n{source}",
        ).text(by_transport(iggy), folder / "run")
        super().__init__(folder, text, arguments, environ)
        if start:
            self.start()

    def messages(self, topic: str = "out") -> list[ReceiveMessage]:
        """Every message of a topic, partition by partition."""
        return [message for part in read_partitions(self.iggy, self.stream, topic) for message in part]

    def points(self, topic: str = "out") -> list[dict[str, Any]]:
        """The JSON objects of a topic."""
        return [json.loads(message.payload()) for message in self.messages(topic)]


class Copy(Source):
    """`pipeline start` with an example configuration that copies one database into another."""

    def __init__(self, folder: Path, example: str, iggy: str, replaced: dict[str, str], *, source: str = "") -> None:
        """`example` is the name of a file in configs/; `replaced`: its texts -> what stands there instead.

        `source` is more of `[[sources]]`.
        """
        text = (EXAMPLES / f"{example}.toml").read_text() + f'\n[pipeline]\nruntime_dir = "{folder}/run"\n'
        for old, new in {"127.0.0.1:8090": iggy, 'state_file = "': f'{source}\nstate_file = "{folder}/',
                         **replaced}.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        stream = re.search('stream = "(.*)"', text)
        assert stream is not None
        super().__init__(folder, iggy, "", "", stream[1], arguments=["--until-caught-up"], config=text)


def read_partitions(address: str, stream: str, topic: str) -> list[list[ReceiveMessage]]:
    """Every message of a topic, by partition; none when it is not there."""
    async def all_of_them() -> list[list[ReceiveMessage]]:
        client = IggyClient(TcpConfig(server_address=address, auto_login=AutoLogin.username_password("iggy", "iggy")))
        await client.connect()
        details = await client.get_topic(stream, topic) if await client.get_stream(stream) else None
        out = []
        for partition in details.partitions if details is not None else []:
            found: list[ReceiveMessage] = []
            while polled := await client.poll_messages(
                    stream, topic, consumer=Consumer.Single("test"), count=10_000, auto_commit=False,
                    polling_strategy=PollingStrategy.Offset(len(found)), partition_id=partition.id):
                found += polled
            out.append(found)
        return out

    return asyncio.run(all_of_them())


def identity(point: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a point one of its own: measurement, tags, time."""
    return point["measurement"], tuple(sorted(point["tags"].items())), point["time"]


def write(influxdb: SandboxInflux, lines: list[str]) -> None:
    """Stores lines in the sandbox."""
    path = {"v1": "/write?db=sandbox", "v2": "/api/v2/write?org=sandbox&bucket=sandbox",
            "v3": "/api/v3/write_lp?db=sandbox&precision=nanosecond"}[influxdb.flavour]
    for at in range(0, len(lines), 5_000):
        answer = requests.post(influxdb.url + path, data="\n".join(lines[at:at + 5_000]).encode(), timeout=60,
                               headers={"Authorization": "Token sandbox-token"})
        assert answer.status_code == 204, answer.text


def lines_of(count: int) -> list[str]:
    """Points of 7 devices, all types; three points have each time."""
    return [f'm,device=d{n % 7} f={n}.0,i={n}i,s="n {n}",b={"true" if n % 2 else "false"} {FIRST_TIME + n // 3 * 10**9}'
            for n in range(count)]


def check(points: list[dict[str, Any]], count: int, once: bool = True) -> None:
    """All of `lines_of`, as they were stored; with `once`, none twice."""
    found = Counter(p["fields"]["i"] for p in points)
    assert sorted(found) == list(range(count))
    assert not once or len(points) == count
    for p in points:
        n = p["fields"]["i"]
        assert p == {"measurement": "m", "tags": {"device": f"d{n % 7}"}, "time": FIRST_TIME + n // 3 * 10**9,
                     "fields": {"b": n % 2 == 1, "f": float(n), "i": n, "s": f"n {n}"}}
        assert isinstance(p["fields"]["f"], float)
