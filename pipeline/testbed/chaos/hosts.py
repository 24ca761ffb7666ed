"""The hosts of `scripts/chaos --hosts`: servers, pipelines of one consumer group, and an encoder, each on its own."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from pipeline.config.iggy_schema import IggyConfig
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.iggy.errors import IggyError
from pipeline.interrupts import signals_blocked
from pipeline.sockets.curve_keys import add_worker, make_keys
from pipeline.testbed.chaos.faults import AWAY
from pipeline.testbed.harness import telemetry
from pipeline.testbed.harness.clocks import Clock
from pipeline.testbed.harness.configurations import SANDBOX_V2
from pipeline.testbed.harness.runs import SinkRun
from pipeline.testbed.harness.waiting import wait_until
from pipeline.testbed.hosts.network import Network
from pipeline.testbed.sandbox.iggy.server import HEARTBEAT_SECONDS as DEFAULT_HEARTBEAT_SECONDS

IGGY, INFLUXDB, PRODUCER, ENCODER = "iggy", "influxdb", "producer", "encoder"
IGGY_PORT, INFLUXDB_PORT, CONTROL_PORT = 8090, 8086, 7400
GROUP = "pipelines"
#: Iggy's heartbeat interval, seconds: a member of which nothing is heard for 1.2 of them is put out of the group.
HEARTBEAT_SECONDS = 8.0
_INFLUXDB = SANDBOX_V2 + """
connect_timeout_ms = 2_000
read_timeout_ms = 4_000
retry_backoff_ms = 50
retry_backoff_max_ms = 1_000
"""
_OPTIONS = """
workers = 1
readers = 1
writers = 1
batch_size = 500
flush_interval_ms = 100
window_messages = 20_000
max_restarts = 10_000
redelivery_timeout_ms = 20_000
log_level = "info"
"""


class HostPipeline:
    """The pipeline of one host, which is started again when it ends because Iggy was away, as a service would be."""

    def __init__(self, network: Network, host: str, folder: Path, config: str, clock: Clock) -> None:
        self.host = host
        self.run = SinkRun(folder, config, environ=clock.environ, prefix=network.prefix(host))
        #: Whether it has to run at the moment.
        self.wanted = False
        #: How often it was started again because Iggy was away when it started.
        self.starts_without_iggy = 0

    def start(self) -> None:
        """Starts it, for the first time or again."""
        self.wanted = True
        self.run.start()

    def watch(self) -> None:
        """Raises PipelineError when it has ended, but for want of Iggy at its start; then it is started again."""
        if not self.wanted:
            return
        try:
            self.run.watch(0)
        except PipelineError:
            lines = self.run.log().splitlines()
            if self.run.process.returncode != 1 or not (lines and lines[-1].startswith(AWAY)):
                raise
            self.starts_without_iggy += 1
            self.run.start()


class RemoteEncoder:
    """`pipeline stage encode` on a host of its own, for the pipeline of another."""

    def __init__(self, folder: Path, network: Network, pipeline: HostPipeline, keys: Path, clock: Clock) -> None:
        self._command = [*network.prefix(ENCODER), sys.executable, "-m", "pipeline", "stage", "encode", "-c",
                         str(pipeline.run.config), "--connect", f"{network.address(pipeline.host)}:{CONTROL_PORT}",
                         "--keys", str(keys), "--name", "far"]
        self._environ = {**os.environ, **clock.environ}
        self.log_file = folder / "encoder.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.wanted = False

    def start(self) -> None:
        """Starts it, for the first time or again."""
        self.wanted = True
        with self.log_file.open("ab") as log, signals_blocked():
            self.process = subprocess.Popen(self._command, stderr=log, env=self._environ)

    def watch(self) -> None:
        """Starts it again if it has ended."""
        if self.wanted and self.process is not None and self.process.poll() is not None:
            self.start()

    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text() if self.log_file.exists() else ""


class Hosts:
    """All hosts with what runs on them. The network is there; this process is on the host `PRODUCER`."""

    def __init__(self, folder: Path, network: Network, partitions: int, iggy_binary: str = "") -> None:
        """Starts the servers and makes the topic. `iggy_binary`: a real server; "": the sandbox's. Raises
        PipelineError."""
        self.folder = folder
        self.network = network
        #: Iggy's heartbeat interval, seconds; a real server has its default.
        self.heartbeat_seconds = DEFAULT_HEARTBEAT_SECONDS if iggy_binary else HEARTBEAT_SECONDS
        self.servers: list[subprocess.Popen[bytes]] = []
        #: The wall clock of each host whose processes are Python's: all but the producer's, and that of a real server.
        self.clocks = {host: self._clock(host) for host in network.hosts
                       if host != PRODUCER and not (host == IGGY and iggy_binary)}
        self.iggy = f"{network.address(IGGY)}:{IGGY_PORT}"
        self.influxdb = f"http://{network.address(INFLUXDB)}:{INFLUXDB_PORT}"
        if iggy_binary:
            self._start_iggy(iggy_binary)
        else:
            self._start_sandbox(IGGY, "--iggy-heartbeat-seconds", str(HEARTBEAT_SECONDS))
        self._start_sandbox(INFLUXDB)
        wait_until(lambda: asyncio.run(self._make_topic(partitions)), "Iggy")
        self.pipelines = [self._pipeline(host) for host in network.hosts if host.startswith("pipeline")]
        self.encoder = RemoteEncoder(folder, network, self.pipelines[0], folder / "keys" / "worker-far",
                                     self.clocks[ENCODER])

    def _clock(self, host: str) -> Clock:
        folder = self.folder / "clocks" / host
        folder.mkdir(parents=True)
        return Clock(folder)

    def _start_sandbox(self, server: str, *options: str) -> None:
        address_file = self.folder / f"{server}.json"
        with signals_blocked():
            process = subprocess.Popen(
                [*self.network.prefix(server), sys.executable, "-m", "pipeline.testbed.sandbox.run", "--host",
                 self.network.address(server), "--only", server, "--iggy-port", str(IGGY_PORT), "--influx-port",
                 str(INFLUXDB_PORT), "--address-file", str(address_file), *options], stdout=subprocess.DEVNULL,
                env={**os.environ, **self.clocks[server].environ})
        self.servers.append(process)
        wait_until(lambda: address_file.exists() or process.poll() is not None, f"the host {server}")

    def _start_iggy(self, binary: str) -> None:
        address = self.network.address(IGGY)
        environ = {**os.environ, "IGGY_ROOT_USERNAME": "iggy", "IGGY_ROOT_PASSWORD": "iggy",
                   "IGGY_SYSTEM_PATH": str(self.folder / "iggy-data"), "IGGY_TCP_ADDRESS": self.iggy,
                   "IGGY_HTTP_ADDRESS": f"{address}:3000", "IGGY_QUIC_ADDRESS": f"{address}:8080",
                   "IGGY_WEBSOCKET_ADDRESS": f"{address}:8092", "IGGY_SYSTEM_SHARDING_PIN_CORES": "false",
                   "IGGY_SYSTEM_SHARDING_CPU_ALLOCATION": "all"}
        with (self.folder / "iggy.log").open("wb") as log, signals_blocked():
            self.servers.append(subprocess.Popen([*self.network.prefix(IGGY), binary], env=environ, cwd=self.folder,
                                                 stdout=log, stderr=log))

    async def _make_topic(self, partitions: int) -> bool:
        iggy = IggyConnection(IggyConfig(address=self.iggy, call_timeout_ms=3_000))
        try:
            await iggy.connect()
            await iggy.make_topic(telemetry.STREAM, telemetry.TOPIC, partitions)
        except IggyError:
            return False
        return True

    def _pipeline(self, host: str) -> HostPipeline:
        folder = self.folder / host / "pipeline"
        folder.mkdir(parents=True)
        options = _OPTIONS
        if host == "pipeline-1":
            keys = self.folder / "keys"
            make_keys(str(keys))
            add_worker(str(keys), "far")
            options += (f'\n[network]\nlisten = "{self.network.address(host)}"\nport = {CONTROL_PORT}\n'
                        f'keys = "{keys}"')
        config = msgspec.structs.replace(
            telemetry.sink_of(self.influxdb, _INFLUXDB, options=options),
            iggy_options=f'call_timeout_ms = 3_000\nconsumer_group = "{GROUP}"')
        return HostPipeline(self.network, host, folder, config.text(self.iggy, folder / "run"), self.clocks[host])

    def start(self) -> None:
        """Starts the pipelines and the encoder; returns when every pipeline is ready. Raises PipelineError."""
        for pipeline in self.pipelines:
            pipeline.start()
        for pipeline in self.pipelines:
            pipeline.run.wait_for(lambda status: status.ready, f"{pipeline.host} to be ready")
        self.encoder.start()

    def watch(self) -> None:
        """Takes note of what the pipelines say. Raises PipelineError when one has ended."""
        for pipeline in self.pipelines:
            pipeline.watch()
        self.encoder.watch()

    def stop(self) -> list[int]:
        """SIGTERM to all pipelines at once, when the last one that has come back is ready; their exit codes."""
        for pipeline in self.pipelines:
            pipeline.run.wait_for(lambda status: status.ready, f"{pipeline.host} to be ready")
        self.encoder.wanted = False
        for pipeline in self.pipelines:
            pipeline.wanted = False
            pipeline.run.process.terminate()
        return [pipeline.run.ends() for pipeline in self.pipelines]
