"""What is no message of ours harms nobody: garbage, nonsense and strangers at every socket. By seeds."""

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import zmq

from pipeline.commands.config import load_config
from pipeline.config.digest import config_digest
from pipeline.config.plan import Plan
from pipeline.coordinator.process import Coordinator
from pipeline.sockets.control_socket import sender_of
from pipeline.sockets.curve_keys import add_worker, make_keys
from pipeline.sockets.endpoints import BATCH_PORTS, WRITER_PORTS, Endpoints, RemoteEndpoints
from pipeline.source_coordinator.process import SourceCoordinator
from pipeline.supervisor.child import preloaded_modules, run_child
from pipeline.supervisor.fork_server import ForkServer
from pipeline.testbed.harness.waiting import free_port, wait_until
from pipeline.wire import common
from pipeline.wire import sink as wire
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, send
from tests.support.sources import Source, check, lines_of, write
from tests.support.strangers import GREETINGS, garbage, peer, shout

Start = Callable[..., Sink]
LOGGER = logging.getLogger("test")
#: A stranger at a socket that sends may be given what another was to get: it is read again after this.
HASTY = "redelivery_timeout_ms = 3_000"
IDENTITIES = (b"", b"stranger", b"\xff\xfe\x00", b"encode-7", b"write-9", b"x" * 255)
CONFIG = """
[iggy]
address = "127.0.0.1:1"
[[topics]]
stream = "s"
topic = "t"
[influxdb]
url = "http://127.0.0.1:2"
version = "v1"
database = "db"
[[sources]]
name = "source"
state_file = "{folder}/state.json"
[sources.influxdb]
url = "http://127.0.0.1:2"
version = "v1"
database = "db"
[sources.output]
stream = "other"
"""


def plan_in(folder: Path) -> Plan:
    """The plan of a pipeline in both directions, whose servers are away."""
    path = folder / "pipeline.toml"
    path.write_text(CONFIG.format(folder=folder))
    return Plan(load_config(str(path)), str(folder), encoders=1, writers=1, run="0123456789abcdef" * 2)


def is_unharmed(sink: Sink) -> None:
    """No process has died, and garbage was spoken of."""
    log = sink.log()
    assert "died" not in log and "fault" not in log and "Traceback" not in log, log[-3_000:]
    assert "dropped a message" in log
    assert len(log) < 100_000


@pytest.mark.parametrize("seed", range(2))
def test_garbage_at_every_socket_costs_nothing(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                               start_sink: Start, seed: int) -> None:
    chance = random.Random(seed)
    sandbox.create_topic(stream, TOPIC, 2)
    sink = start_sink(sandbox.address, stream, influxdb, options=HASTY)
    status = sink.wait_for(lambda status: status.ready)
    folder = sink.folder / "run"
    noise = garbage(chance, status.epoch)
    for step in range(30):
        send(sandbox.address, stream, [message(n) for n in range(step * 100, step * 100 + 100)], 2)
        with ExitStack() as peers:
            control = peers.enter_context(peer(zmq.DEALER, f"ipc://{folder}/control.ipc", chance.choice(IDENTITIES)))
            writer = peers.enter_context(peer(zmq.PUSH, f"ipc://{folder}/write-0.ipc"))
            for socket, frames in zip(itertools.cycle((control, writer)), itertools.islice(noise, 20), strict=False):
                socket.send_multipart(frames)
        for path in folder.glob("*.ipc"):
            shout(path, chance.choice(GREETINGS))
    sink.settles(3_000)
    assert numbers(influxdb.points()) == list(range(3_000))
    assert sink.wait_for(lambda status: status.dropped > 100)
    is_unharmed(sink)
    assert sink.stop() == 0


def test_garbage_at_the_sockets_of_a_source_costs_nothing(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                          tmp_path: Path) -> None:
    write(influxdb, lines_of(2_000))
    run = Source(tmp_path / "p", sandbox.address, influxdb.url,
                 'bucket = "sandbox"\norg = "sandbox"\ntoken = "sandbox-token"', stream, source="page_size = 10",
                 options=HASTY)
    try:
        epoch = run.wait_for(lambda status: status.ready).epoch
        folder, chance = run.folder / "run", random.Random(0)
        noise = garbage(chance, epoch)
        for _ in range(20):
            with ExitStack() as peers:
                control = peers.enter_context(peer(zmq.DEALER, f"ipc://{folder}/source.ipc", chance.choice(IDENTITIES)))
                produce = peers.enter_context(peer(zmq.PUSH, f"ipc://{folder}/messages.ipc"))
                for socket, frames in zip(itertools.cycle((control, produce)), itertools.islice(noise, 20),
                                          strict=False):
                    socket.send_multipart(frames)
            for path in folder.glob("*.ipc"):
                shout(path, chance.choice(GREETINGS))
        wait_until(lambda: len(run.points()) >= 2_000, "all points")
        check(run.points(), 2_000, once=False)
        assert run.wait_for(lambda status: status.dropped > 20)
        log = run.log()
        assert "died" not in log and "fault" not in log, log[-3_000:]
        assert run.stop() == 0
    finally:
        run.close()


@pytest.mark.parametrize("name", ["ingest", "encode-0", "write-0", "dead-letter", "query", "convert-0", "produce"])
def test_no_process_dies_of_what_its_coordinator_or_neighbour_sends(tmp_path: Path, name: str) -> None:
    """The test is the coordinator, and whatever else the process is connected to."""
    plan, chance = plan_in(tmp_path), random.Random(0)
    endpoints = Endpoints(plan.folder)
    source = name in plan.source_stages()
    with ExitStack() as stack:
        def bound(kind: int, endpoint: str) -> "zmq.Socket[bytes]":
            socket: zmq.Socket[bytes] = stack.enter_context(zmq.Context.instance().socket(kind))
            stack.callback(socket.setsockopt, zmq.LINGER, 0)
            endpoints.bind(socket, endpoint)
            return socket

        router = bound(zmq.ROUTER, endpoints.source_control if source else endpoints.control)
        pushes = [bound(zmq.PUSH, {"encode-0": endpoints.batches(0), "convert-0": endpoints.pages}[name])] \
            if name in ("encode-0", "convert-0") else []
        process, reasons = ForkServer(plan.folder, preloaded_modules(plan)).start(name, run_child, name, 0, plan)
        stack.callback(process.join)
        stack.callback(process.kill)

        def hello() -> common.Heartbeat:
            """The next one."""
            while True:
                assert router.poll(30_000), "the process says nothing"
                identity, *frames = router.recv_multipart()
                assert identity == name.encode()
                said = wire.decode_control(frames[0])
                if isinstance(said, common.Heartbeat):
                    return said

        pid = hello().pid
        if name in ("write-0", "produce"):
            pushes = [stack.enter_context(peer(zmq.PUSH, endpoints.writer(0) if name == "write-0"
                                               else endpoints.messages))]
        noise = garbage(chance, plan.epoch)
        for frames in itertools.islice(noise, 600):
            router.send_multipart([name.encode(), *frames])
            for push in pushes:
                push.send_multipart(frames)
        until = time.monotonic() + 30
        while (said := hello()).dropped < 100:
            assert time.monotonic() < until, said
        assert said.pid == pid
        assert process.is_alive()
        assert not reasons.poll(0)


@pytest.mark.parametrize("seed", range(3))
def test_no_message_of_anybody_kills_a_coordinator(tmp_path: Path, seed: int) -> None:
    plan, chance = plan_in(tmp_path), random.Random(seed)

    async def listen() -> None:
        sink, source = Coordinator(plan, LOGGER), SourceCoordinator(plan, LOGGER)
        noise = garbage(chance, plan.epoch)
        senders = ["supervisor", *plan.stages(), *plan.source_stages(), "", "nobody", "encode-9"]
        for frames in itertools.islice(noise, 3_000):
            sender = chance.choice(senders)
            for found in sink.router.check(sender.encode(), None, frames):
                sink.handle(*found)
            source.take(sender_of(sender.encode()), frames)
        sink.status()
        assert sink.router.dropped.count > 1_000
        assert source.dropped.count > 500
        sink.router.close()

    asyncio.run(listen())


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Path]:
    """A pipeline's keys, with a worker `far`."""
    folder = tmp_path / "keys"
    make_keys(str(folder))
    add_worker(str(folder), "far")
    yield folder


def start_on_tcp(start_sink: Start, sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                 keys: Path) -> tuple[Sink, int]:
    """A pipeline that listens, and its port."""
    port = free_port(BATCH_PORTS, WRITER_PORTS, WRITER_PORTS + 1)
    network = f'\n[network]\nlisten = "127.0.0.1"\nport = {port}\nkeys = "{keys}"'
    sandbox.create_topic(stream, TOPIC, 2)
    sink = start_sink(sandbox.address, stream, influxdb, options=network)
    sink.wait_for(lambda status: status.ready)
    return sink, port


def test_strangers_on_the_network_cost_nothing(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                               start_sink: Start, keys: Path) -> None:
    sink, port = start_on_tcp(start_sink, sandbox, stream, influxdb, keys)
    ports = [port, port + BATCH_PORTS, port + WRITER_PORTS, port + WRITER_PORTS + 1]
    noise, chance = garbage(random.Random(0), 1), random.Random(0)
    for step in range(10):
        send(sandbox.address, stream, [message(n) for n in range(step * 100, step * 100 + 100)], 2)
        for one in ports:
            for words in (*GREETINGS, b"", chance.randbytes(100_000)):
                shout(("127.0.0.1", one), words)
        with ExitStack() as peers:
            for one, kind in zip(ports, (zmq.DEALER, zmq.PULL, zmq.PUSH, zmq.PUSH), strict=True):
                plain = peers.enter_context(peer(kind, f"tcp://127.0.0.1:{one}"))
                if kind != zmq.PULL:
                    with suppress(zmq.Again):  # the connection was refused already
                        plain.send_multipart(next(noise), zmq.NOBLOCK)
                else:
                    assert not plain.poll(200)
    sink.settles(1_000)
    assert numbers(influxdb.points()) == list(range(1_000))
    assert "died" not in sink.log()
    assert sink.stop() == 0


def test_a_worker_that_was_refused_can_send_nothing(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                    start_sink: Start, keys: Path) -> None:
    sink, port = start_on_tcp(start_sink, sandbox, stream, influxdb, keys)
    epoch = sink.wait_for(lambda status: status.ready).epoch
    remote = RemoteEndpoints("127.0.0.1", port, str(keys / "worker-far"))
    with ExitStack() as stack:
        def connected(kind: int, endpoint: str) -> "zmq.Socket[bytes]":
            socket: zmq.Socket[bytes] = stack.enter_context(zmq.Context.instance().socket(kind))
            stack.callback(socket.setsockopt, zmq.LINGER, 0)
            socket.setsockopt(zmq.IDENTITY, b"encode-far")
            socket.setsockopt(zmq.IMMEDIATE, 1)
            remote.connect(socket, endpoint)
            return socket

        control = connected(zmq.DEALER, remote.control)
        control.send(common.encode(wire.Join("encode-far", 1, "another configuration")))
        assert control.poll(20_000)
        admit = wire.decode_control(control.recv())
        assert isinstance(admit, wire.Admit) and admit.refused
        batches, lines = connected(zmq.PULL, remote.batches(0)), connected(zmq.PUSH, remote.writer(0))
        for frames in itertools.islice(garbage(random.Random(0), epoch), 200):
            control.send_multipart(frames)
        control.send(common.encode(common.Heartbeat("encode-far", 1)))
        control.send(common.encode(wire.Failed("stop")))
        send(sandbox.address, stream, [message(n) for n in range(2_000)], 2)
        sink.settles(2_000)
        assert not lines.poll(0, zmq.POLLOUT) and not batches.poll(0)
        assert "encode-far" not in sink.wait_for(lambda status: status.dropped > 100).pids
        # With the right configuration the same key comes in, and only then.
        digest = config_digest(load_config(str(sink.config)))

        def is_admitted() -> bool:
            control.send(common.encode(wire.Join("encode-far", 1, digest)))
            while control.poll(500):
                answer = wire.decode_control(control.recv())
                if isinstance(answer, wire.Admit) and not answer.refused:
                    return True
            return False

        wait_until(is_admitted, "the admission")
        assert lines.poll(20_000, zmq.POLLOUT)
    assert numbers(influxdb.points()) == list(range(2_000))
    is_unharmed(sink)


def test_a_coordinator_that_is_new_admits_the_encoders_that_were_there(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, keys: Path) -> None:
    sink, port = start_on_tcp(start_sink, sandbox, stream, influxdb, keys)
    remote = RemoteEndpoints("127.0.0.1", port, str(keys / "worker-far"))
    digest = config_digest(load_config(str(sink.config)))
    with ExitStack() as stack:
        control: zmq.Socket[bytes] = stack.enter_context(zmq.Context.instance().socket(zmq.DEALER))
        stack.callback(control.setsockopt, zmq.LINGER, 0)
        control.setsockopt(zmq.IDENTITY, b"encode-far")
        remote.connect(control, remote.control)

        def join() -> None:
            # A pid that no process here has: the end of the pipeline's processes is waited for by their pids.
            control.send(common.encode(wire.Join("encode-far", 2**31 - 1, digest)))

        join()
        sink.wait_for(lambda status: "encode-far" in status.pids)
        epoch = sink.wait_for(lambda status: True).epoch
        sink.kill("coordinator")
        sink.wait_for(lambda status: status.epoch != epoch)
        join()
        sink.wait_for(lambda status: status.epoch != epoch and "encode-far" in status.pids)
    assert sink.stop() == 0
