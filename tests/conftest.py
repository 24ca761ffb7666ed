"""What the tests share: an Iggy to talk to. The sandbox's always; a real server too, when the environment names one.

IGGY_TEST_SERVER=host:port names the TCP address of a real server 0.9.0-edge.5 with user and password `iggy`, and
IGGY_TEST_HTTP=host:port its HTTP address (port 3000 of the same host by default). Without the first, the tests are
the same but for those of the real server, which don't exist then.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.iggy_servers import SERVER, SERVER_HTTP, RunningIggy, SandboxIggy, ServerIggy, running_sandbox
from tests.support.influxdb_servers import running_influxdb
from tests.support.secrets import check_nothing_secret_was_printed, kept_output
from tests.support.sinks import TARGETS, SandboxInflux, Sink

# Property tests try the same examples while the code is the same (Hypothesis takes some from its literals): what then
# fails was broken by a change. `search` looks for what is broken already. Neither minds how long an example takes.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", settings.get_profile("same"), derandomize=False, max_examples=300)
settings.load_profile("same")

# Processes that tests start keep their bytecode, whatever the surroundings ask for: there are some hundreds, and each
# would compile the product again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

#: Worker processes of pytest-xdist; each begins with a piece of the list of tests of its own.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the tests for `--dist worksteal`, which gives each worker a piece of the list.

    Each piece begins with long tests, those that start processes follow, and the short ones are last. Tests of one
    `xdist_group` share an expensive fixture and stay together.
    """
    def rank(item: pytest.Item) -> int:
        if item.get_closest_marker("long"):
            return 0
        return 1 if {"processes", "servers"}.intersection(item.path.parts) else 2

    together: dict[object, list[pytest.Item]] = {}
    for item in sorted(items, key=rank):
        group = item.get_closest_marker("xdist_group")
        together.setdefault(group.args[0] if group else item, []).append(item)
    units = list(together.values())
    items[:] = [item for worker in range(WORKERS) for unit in units[worker::WORKERS] for item in unit]


@pytest.fixture(autouse=True)
def no_secret_is_printed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test: no token or password of its configurations is in what its processes have printed."""
    with kept_output() as printed:
        yield
    folder = request.node.funcargs.get("tmp_path")
    if folder is not None:
        check_nothing_secret_was_printed(folder, printed.texts)


@pytest.fixture
def sandbox() -> Iterator[SandboxIggy]:
    """The sandbox broker, for tests that make it fail."""
    with running_sandbox() as running:
        yield running


@pytest.fixture(params=["sandbox", "server"] if SERVER else ["sandbox"])
def iggy(request: pytest.FixtureRequest) -> Iterator[RunningIggy]:
    """An Iggy: the sandbox's, and in a second run of the test the real server, if there is one."""
    if request.param == "sandbox":
        with running_sandbox() as running:
            yield running
        return
    server = ServerIggy(SERVER, SERVER_HTTP)
    yield server
    server.close()


@pytest.fixture
def iggy_address(iggy: RunningIggy) -> str:
    """Where that Iggy listens."""
    return iggy.address


@pytest.fixture
def stream() -> str:
    """A stream's name that no other test has; the stream isn't there yet."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def influxdb() -> Iterator[SandboxInflux]:
    """A sandbox InfluxDB 2."""
    with running_influxdb() as server:
        yield SandboxInflux(server.url)


@pytest.fixture
def start_sink(tmp_path: Path) -> Iterator[Callable[..., Sink]]:
    """Starts pipelines: (iggy address, stream, influxdb, **options of Sink); all end with the test."""
    with ExitStack() as running:
        def start(address: str, stream: str, influxdb: SandboxInflux, **options: Any) -> Sink:
            folder = tmp_path / f"p{len(list(tmp_path.iterdir()))}"
            sink = Sink(folder, address, stream, influxdb.url, options.pop("target", TARGETS[influxdb.flavour]),
                        **options)
            running.callback(sink.close)
            return sink

        yield start
