"""The other direction: a real InfluxDB 1.x with many points -> pipeline -> the sandbox's broker, by size of page."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec
import requests
from msgspec import Struct

from pipeline.errors import PipelineError
from pipeline.points.times import MAX_TIME
from pipeline.points.windows import TimeWindow
from pipeline.testbed.bench import influxd
from pipeline.testbed.bench.sampler import cpu_seconds
from pipeline.testbed.bench.throughput import RUN_SECONDS, cpu_us
from pipeline.testbed.harness import procfs, telemetry
from pipeline.testbed.harness.configurations import SourceConfiguration
from pipeline.testbed.harness.influxd import Influxd
from pipeline.testbed.harness.runs import SourceRun
from pipeline.testbed.harness.sandboxes import running_sandbox
from pipeline.testbed.harness.slow_link import slow_link
from pipeline.wire import source as source_wire
from stages.languages.influxql import InfluxqlDialect
from stages.languages.language import QueryRequest

#: Seconds between two samples of the memory.
LOOK_SECONDS: Final = 0.05
#: Longest wait for a database that was filled to be quiet, seconds; and the share of a core that counts as quiet.
SETTLE_SECONDS: Final = 30.0
QUIET_CPU: Final = 0.05
#: Bytes of an answer that the bare loop takes at once.
PIECE_BYTES: Final = 65_536
Format = Literal["json", "line_protocol", "msgpack"]


class Reading(Struct, frozen=True, kw_only=True):
    """What it took a pipeline to read all points out of a database. Start-up is not counted."""

    points: int
    page_size: int
    format: str
    #: From the order to read the first page to the confirmation of the last.
    points_per_second: int
    #: "total" of ours and by kind of process; and of the two servers. Microseconds.
    cpu_us_per_point: dict[str, float]
    servers_cpu_us_per_point: dict[str, float]
    #: Largest proportional set size seen, MB: by process, and of the largest sum.
    peak_pss_mb: dict[str, float]
    #: What starting all processes cost.
    startup_cpu_seconds: float


class SourceFigures(Reading, frozen=True, kw_only=True):
    """One run beside a loop that asks for the same pages, and throws the answers away."""

    #: Windows that were read at a time.
    windows: int
    bare_points_per_second: int
    ratio_to_bare_loop: float


class Task(Struct, frozen=True, kw_only=True):
    """What is to be read, and how."""

    points: int
    workers: int
    format: Format
    #: Cores that only the database has; 0 shares all.
    database_cores: int = 0
    #: What requests to the database take, milliseconds.
    latency_ms: float = 0.0


class _Peak:
    """The most memory seen."""

    def __init__(self) -> None:
        self.parts: dict[str, int] = {}
        self.total = 0

    def look(self, pids: dict[str, int]) -> None:
        sizes = {name: procfs.pss_bytes(pid) for name, pid in pids.items()}
        self.total = max(self.total, sum(sizes.values()))
        self.parts = {name: max(size, self.parts.get(name, 0)) for name, size in sizes.items()}

    def mb(self) -> dict[str, float]:
        return {name: round(size / 1e6, 1) for name, size in [("total", self.total), *sorted(self.parts.items())]}


def measure(folder: Path, task: Task, page_sizes: list[int], windows: list[int]) -> Iterator[SourceFigures]:
    """Fills an InfluxDB once, and reads it with each size of page and number of windows, each time to a new broker.

    Raises PipelineError.
    """
    with influxd.cores_apart(task.database_cores) as cores, influxd.influxd(folder / "influxd", cores) as server:
        influxd.bare_loop(server.url, task.points)
        _settled(server.pid)
        with slow_link(urlsplit(server.url).port or 80, task.latency_ms) as port:
            url = f"http://127.0.0.1:{port}" if task.latency_ms else server.url
            for page_size in page_sizes:
                bare = bare_loop(url, task.points, page_size)
                for number in windows:
                    below = folder / f"run-{page_size}-{number}"
                    below.mkdir()
                    yield _one(below, Influxd(url, server.pid), task, page_size, number, bare)


def _settled(pid: int) -> None:
    """Returns when a database has done with what was written, and is quiet."""
    until = time.monotonic() + SETTLE_SECONDS
    before = cpu_seconds(pid)
    while time.monotonic() < until:
        time.sleep(1.0)
        now = cpu_seconds(pid)
        if now - before < QUIET_CPU:
            return
        before = now


def _one(folder: Path, server: Influxd, task: Task, page_size: int, windows: int, bare: int) -> SourceFigures:
    reading = read(folder, f'url = "{server.url}"\nversion = "v1"', {"influxd": server.pid}, task.points, page_size,
                   task.workers, task.format, windows)
    return SourceFigures(**msgspec.structs.asdict(reading), windows=windows, bare_points_per_second=bare,
                         ratio_to_bare_loop=round(reading.points_per_second / bare, 2))


def read(folder: Path, influxdb: str, servers: dict[str, int], points: int, page_size: int, workers: int,
         format_: Format, windows: int = 1) -> Reading:
    """Runs a pipeline in an empty folder that reads so many points into a new sandbox's Iggy. Raises PipelineError.

    `influxdb`: lines of `[sources.influxdb]` that say where they are. `servers`: pids by name, whose CPU is wanted,
    too. `windows`: read at a time.
    """
    with running_sandbox(folder, "--only", "iggy") as iggy:
        pids = {**servers, "iggy": iggy.pid}
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        config = SourceConfiguration(
            stream="bench", influxdb=f'{influxdb}\ndatabase = "sandbox"\ngzip = false', options=f"workers = {workers}",
            source=f'state_file = "{folder}/state.json"\nbuffer_duration_ms = 0\npage_size = {page_size}\n'
                   f"parallel_windows = {windows}\nmax_parallel_queries = {max(2, windows)}\n"
                   f"pages_in_flight = {max(6, 3 * windows)}",
            output=f'partitions = 2\nformat = "{format_}"')
        with SourceRun(folder, config.text(iggy.iggy, folder / "run")) as run:
            status, peak = _watched(run, points)
            cpu = cpu_us(status.pids, status.startup_cpu, points)
            used = {name: round((cpu_seconds(pid) - before[name]) / points * 1e6, 3) for name, pid in pids.items()}
            if run.stop() != 0 or status.rejected or status.points != points:
                raise PipelineError(f"the run went wrong; the log says:\n{run.log()}")
    return Reading(points=points, page_size=page_size, format=format_, cpu_us_per_point=cpu,
                   points_per_second=round(points / (status.last_at - status.first_at)), servers_cpu_us_per_point=used,
                   peak_pss_mb=peak.mb(), startup_cpu_seconds=round(sum(status.startup_cpu.values()), 2))


def _watched(run: SourceRun, points: int) -> tuple[source_wire.SourceStatus, _Peak]:
    """Looks at the memory until all points are sent. The last status of the source, and the peak."""
    peak = _Peak()
    until = time.monotonic() + RUN_SECONDS
    while True:
        status = run.watch(LOOK_SECONDS)
        if status is not None:
            peak.look(run.pids())
            if status.points + status.rejected >= points:
                return status, peak
        if time.monotonic() > until:
            raise PipelineError(f"{status.points if status else 0:,} of {points:,} points were sent; {run.log_end()}")


def bare_loop(url: str, points: int, page_size: int) -> int:
    """Points a second of one loop that asks for the same pages, and reads only the last time of each."""
    dialect = InfluxqlDialect(influxd.DATABASE)
    began, start, last = time.monotonic(), -1, 0
    with requests.Session() as session:
        def post(asked: QueryRequest) -> requests.Response:
            answer = session.post(url + asked.path, data=asked.body, stream=True, timeout=60,
                                  headers={"Content-Type": asked.content_type, "Accept-Encoding": "identity"})
            answer.raise_for_status()
            return answer

        columns = dialect.read_columns(post(dialect.columns(telemetry.TOPIC)).content)
        # As the source has it: what is of the last time of a full page comes again with the next one.
        while last > start:
            start, tail = last, b""
            answer = post(dialect.page(telemetry.TOPIC, columns, TimeWindow(start, MAX_TIME), page_size + 1))
            for piece in answer.iter_content(PIECE_BYTES):
                tail = tail[-PIECE_BYTES:] + piece
            last = int(tail.rpartition(b"],[")[2].partition(b",")[0].lstrip(b"["))
    return round(points / (time.monotonic() - began))


def text(found: SourceFigures) -> str:
    """One run, for a terminal."""
    return (f"page_size {found.page_size:,}, {found.windows} windows: {found.ratio_to_bare_loop:g} of a bare loop's "
            f"{found.bare_points_per_second:,} points/s; {reading_text(found)}")


def reading_text(found: Reading) -> str:
    """What it took, for a terminal."""
    def listed(values: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in values.items())

    return (f"{found.points_per_second:,} points/s of {found.points:,} as {found.format}\n"
            f"  CPU a point, us: {listed(found.cpu_us_per_point)}; servers: {listed(found.servers_cpu_us_per_point)}\n"
            f"  memory (PSS), most, MB: {listed(found.peak_pss_mb)}")


def to_json(runs: list[SourceFigures]) -> bytes:
    """All runs as one line."""
    return msgspec.json.encode({"source": runs})
