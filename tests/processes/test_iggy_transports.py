"""Both directions, a consumer group and dead letters over each transport of Iggy, through a lost connection.

The transports of a real server: see `tests/support/transports.py`.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from apache_iggy import Consumer, IggyClient, PollingStrategy

from pipeline.config.iggy_schema import IggyConfig, IggyTlsConfig
from pipeline.testbed.harness.runs import SinkRun
from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_clients import as_user, make_topics
from tests.support.iggy_servers import SandboxIggy, running_sandbox
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import SandboxInflux, send_with
from tests.support.sources import lines_of, write
from tests.support.tls import Authority

CONFIG = """
[iggy]
address = "{address}"
transport = "{transport}"
consumer_group = "copies"
tls.enabled = {encrypted}
{authority}

[[sources]]
name = "old"
state_topic = "copy/state"
poll_interval_ms = 100
buffer_duration_ms = 0

[sources.influxdb]
url = "{old}"
version = "v1"
database = "sandbox"

[sources.output]
stream = "copy"
topic = "points"
partitions = 3
format = "line_protocol"

[[topics]]
stream = "copy"
topic = "points"

[mapping]
format = "line_protocol"

[influxdb]
url = "{new}"
version = "v2"
org = "sandbox"
bucket = "sandbox"
token = "sandbox-token"

[pipeline]
runtime_dir = "{folder}/run"
flush_interval_ms = 20
"""


@pytest.fixture(params=["tcp+tls", "websocket+tls"])
def sandbox_and_login(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SandboxIggy, IggyConfig]]:
    """A sandbox that speaks the transport, and how root reaches it."""
    kind, _, encrypted = request.param.partition("+")
    authority = Authority(tmp_path)
    tls = IggyTlsConfig(enabled=True, ca_file=authority.ca_file) if encrypted else IggyTlsConfig()
    with running_sandbox(tls=authority.context(False) if encrypted else None, websocket_port=0) as sandbox:
        address = sandbox.broker.websocket_address if kind == "websocket" else sandbox.address
        yield sandbox, msgspec.convert({"address": address, "transport": kind, "tls": msgspec.to_builtins(tls)},
                                       IggyConfig)


def test_points_are_copied_through_iggy_and_a_bad_message_is_a_dead_letter(
        sandbox_and_login: tuple[SandboxIggy, IggyConfig], influxdb: SandboxInflux, tmp_path: Path) -> None:
    sandbox, root = sandbox_and_login
    with running_influxdb(flavour="v1") as server:
        old = SandboxInflux(server.url, "v1")
        write(old, lines_of(2_000))
        text = CONFIG.format(address=root.address, transport=root.transport, old=old.url, new=influxdb.url,
                             encrypted=str(root.tls.enabled).lower(), folder=tmp_path,
                             authority=f'tls.ca_file = "{root.tls.ca_file}"' if root.tls.enabled else "")
        with SinkRun(tmp_path, text, ["--workers", "1"]) as run:
            run.settles(2_000)
            assert influxdb.count() == 2_000
            sandbox.call(sandbox.broker.drop_connections)
            send_with(root, "copy", "points", [b"not a line"])
            write(old, [f"m,device=new f=1 {time.time_ns() + n}" for n in range(500)])
            wait_until(lambda: influxdb.count() == 2_500, "the points after the lost connections")
            wait_until(lambda: len(letters(root)) == 1, "the dead letter")
            assert run.stop() == 0
    assert letters(root)[0]["payload"] == "not a line"


def letters(root: IggyConfig) -> list[dict[str, str]]:
    """The dead letters in Iggy."""
    make_topics(root, "copy", "influxdb-dlq")

    async def polled(client: IggyClient) -> list[bytes]:
        found = await client.poll_messages("copy", "influxdb-dlq", consumer=Consumer.Single("test"), count=10,
                                           polling_strategy=PollingStrategy.First(), auto_commit=False, partition_id=0)
        return [message.payload() for message in found]

    return [json.loads(letter) for letter in as_user(root, polled)]
