"""InfluxDB 3 over HTTP (JSON lines) and over Arrow Flight: the same points out of one sandbox, in turns.

The sandbox is written in Python and slower than the pipeline, so points a second tell little. What tells is the CPU of
our own processes.
"""

import importlib.util
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec
from msgspec import Struct

from pipeline.errors import PipelineError, missing_package
from pipeline.testbed.bench import influxd
from pipeline.testbed.bench.source_throughput import Reading, read
from pipeline.testbed.harness.sandboxes import running_sandbox

Transport = Literal["http", "flight"]
TRANSPORTS: Final[tuple[Transport, ...]] = get_args(Transport)
TOKEN: Final = "sandbox-token"


class Spread(Struct, frozen=True):
    """One figure over all turns."""

    middle: float
    least: float
    most: float


class FlightFigures(Struct, frozen=True):
    """All turns of both transports. Points a second; CPU in microseconds a point; memory in MB; start-up in seconds."""

    http: dict[str, Spread]
    flight: dict[str, Spread]
    #: Flight's by HTTP's, of each turn: less is better, but for points a second.
    ratio: dict[str, Spread]


class Compared(Struct):
    """The turns so far, by transport."""

    http: list[Reading] = []
    flight: list[Reading] = []

    def add(self, transport: Transport, reading: Reading) -> None:
        """Takes a turn."""
        (self.flight if transport == "flight" else self.http).append(reading)

    def figures(self) -> FlightFigures:
        """What came out, where each transport has had as many turns as the other, and at least one."""
        http, flight = [_values(one) for one in self.http], [_values(one) for one in self.flight]
        ratios = [{name: ours[name] / theirs[name] for name in theirs if theirs[name]}
                  for theirs, ours in zip(http, flight, strict=True)]
        return FlightFigures(_spreads(http), _spreads(flight), _spreads(ratios))


def turns_of(folder: Path, points: int, page_size: int, turns: int,
             workers: int) -> Iterator[tuple[Transport, Reading]]:
    """Fills a sandbox's InfluxDB 3 once, and reads it by each transport so many times. Raises PipelineError.

    Which transport goes first changes from turn to turn, and each reads into a new Iggy.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise PipelineError(f"Flight {missing_package('pyarrow', 'flight')}")
    with running_sandbox(folder, "--only", "influxdb", "--flavour", "v3", "--flight-port", "0") as server:
        influxd.bare_loop(server.influxdb, points, TOKEN)
        for turn in range(turns):
            for transport in TRANSPORTS if turn % 2 == 0 else reversed(TRANSPORTS):
                below = folder / f"{transport}-{turn}"
                below.mkdir()
                url = server.flight if transport == "flight" else server.influxdb
                where = f'url = "{url}"\nversion = "v3"\ntransport = "{transport}"\ntoken = "{TOKEN}"'
                yield transport, read(below, where, {"influxdb": server.pid}, points, page_size, workers, "json")


def text(figures: FlightFigures) -> str:
    """The comparison, for a terminal."""
    def shown(spread: Spread) -> str:
        return f"{spread.middle:,g} ({spread.least:,g} - {spread.most:,g})"

    lines = [("middle (least - most)", "http", "flight", "flight / http")]
    lines += [(name, shown(figures.http[name]), shown(figures.flight[name]), shown(ratio))
              for name, ratio in figures.ratio.items()]
    return "\n".join(f"{name:<26}{http:>28}{flight:>28}{ratio:>26}" for name, http, flight, ratio in lines)


def to_json(compared: Compared) -> bytes:
    """Figures and all turns as one line."""
    return msgspec.json.encode({"flight": compared.figures(), "turns": compared})


def _values(reading: Reading) -> dict[str, float]:
    cpu, memory = reading.cpu_us_per_point, reading.peak_pss_mb
    return {"points_per_second": reading.points_per_second, "cpu_us_per_point": cpu["total"],
            "query_cpu_us_per_point": cpu["query"], "convert_cpu_us_per_point": cpu["convert"],
            "server_cpu_us_per_point": reading.servers_cpu_us_per_point["influxdb"],
            "peak_pss_mb": memory["total"], "query_peak_pss_mb": memory["query"],
            "startup_cpu_seconds": reading.startup_cpu_seconds}


def _spreads(turns: list[dict[str, float]]) -> dict[str, Spread]:
    found = {}
    for name in turns[0]:
        values = [turn[name] for turn in turns if name in turn]
        found[name] = Spread(*(float(f"{of(values):.4g}") for of in (statistics.median, min, max)))
    return found
