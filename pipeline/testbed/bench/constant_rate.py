"""A load at a held rate, the pipeline, and a receiver that notes how late the points are, all at once."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import requests

from pipeline.config.iggy_schema import IggyConfig
from pipeline.errors import PipelineError
from pipeline.interrupts import signals_blocked
from pipeline.testbed.bench import influxd
from pipeline.testbed.bench.latency import Latencies
from pipeline.testbed.bench.results import Held
from pipeline.testbed.bench.sampler import Sampler
from pipeline.testbed.bench.throughput import filled
from pipeline.testbed.harness import telemetry
from pipeline.testbed.harness.configurations import SANDBOX_V2, SinkConfiguration
from pipeline.testbed.harness.runs import is_settled
from pipeline.testbed.harness.sandboxes import Addresses
from pipeline.testbed.harness.waiting import wait_until
from pipeline.testbed.load.runner import LoadOptions, LoadResult, run_load

#: Seconds between two samples of the processes.
SAMPLE_SECONDS = 0.5
#: How long the pipeline may take to finish after the load, seconds.
FINISH_SECONDS = 60.0
MAPPING = """
tag_fields = ["site", "device"]
timestamp_from = "field"
timestamp_field = "ts"
timestamp_format = "epoch_us"
"""


class Result(msgspec.Struct, frozen=True):
    """What the receiver has measured."""

    requests: int
    points: int
    bytes: int
    histogram: str
    by_second: list[tuple[int, int, float, float]]


@contextmanager
def receiver(folder: Path, forward: str = "") -> Iterator[str]:
    """A receiver while the block lasts: its URL. `forward`: that of a database it passes everything on to."""
    address_file = folder / "receiver.json"
    with signals_blocked():
        process = subprocess.Popen([sys.executable, "-m", "pipeline.testbed.bench.receiver", "--address-file",
                                    str(address_file), "--forward", forward])
    try:
        wait_until(lambda: address_file.exists() or process.poll() is not None, "the receiver")
        if process.poll() is not None:
            raise PipelineError("the receiver ended at once; see above")
        yield msgspec.json.decode(address_file.read_bytes(), type=Addresses).influxdb
    finally:
        process.kill()
        process.wait()


def result_of(url: str) -> Result:
    """What the receiver at `url` has counted."""
    return msgspec.json.decode(requests.get(f"{url}/bench/result", timeout=30).content, type=Result)


class Load(threading.Thread):
    """Runs a load beside the sampling."""

    def __init__(self, options: LoadOptions) -> None:
        super().__init__(daemon=True)
        self._options = options
        self.result: LoadResult | None = None
        self.error: PipelineError | None = None

    def run(self) -> None:
        """The load, to its end."""
        try:
            self.result = run_load(self._options)
        except PipelineError as error:
            self.error = error


def hold(folder: Path, options: LoadOptions, workers: int, writers: int, flush_interval_ms: int,
         delivery: str = "batched", iggy: str = "", influxdb1: str = "") -> Held:
    """Runs a load as `options` say, but for its server: `iggy` (host:port), or a sandbox. Raises PipelineError.

    `influxdb1` is the URL of an InfluxDB 1.x that stores the points; without, nothing does.
    """
    Latencies()
    with filled(folder, iggy, 0, options.partitions) as (address, stream), receiver(folder, influxdb1) as url:
        database = influxd.INFLUXDB1 if influxdb1 else SANDBOX_V2
        config = SinkConfiguration(
            stream=stream, topic=telemetry.TOPIC, mapping=MAPPING,
            influxdb=f'url = "{url}"\nprecision = "us"\n{database}',
            options=f"workers = {workers}\nwriters = {writers}\nflush_interval_ms = {flush_interval_ms}\n"
                    f'delivery = "{delivery}"\n')
        with telemetry.sink_run(folder, address, config) as run:
            run.wait_for(lambda s: s.ready)
            login = msgspec.structs.replace(options.iggy, address=address)
            load, sampler = Load(msgspec.structs.replace(options, iggy=login, stream=stream)), Sampler()
            load.start()
            while load.is_alive():
                sampler.look(run.pids())
                run.watch(0.01)
                time.sleep(SAMPLE_SECONDS)
            sampler.look(run.pids())
            if load.result is None:
                raise load.error or PipelineError("the load broke off")
            sent = load.result.messages
            run.wait_for(lambda s: is_settled(s, sent), "the last message", FINISH_SECONDS)
            result = result_of(url)
    return _held(load.result, result, sampler, options, flush_interval_ms)


def _held(load: LoadResult, result: Result, sampler: Sampler, options: LoadOptions, flush_interval_ms: int) -> Held:
    first = result.by_second[0][0] if result.by_second else 0
    return Held(load, options.rate, Latencies(result.histogram).milliseconds(),
                [(float(second - first), count, p50, p99) for second, count, p50, p99 in result.by_second],
                result.points, round(result.points / max(result.requests, 1), 1), sampler.samples, flush_interval_ms)


def default_load(rate: float, seconds: float) -> LoadOptions:
    """A load of 140-byte messages into the topic that the bench's configurations name."""
    return LoadOptions(iggy=IggyConfig(), stream=telemetry.STREAM, topic=telemetry.TOPIC, rate=rate, seconds=seconds,
                       size=140)
