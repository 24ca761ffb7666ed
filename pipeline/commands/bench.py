"""`pipeline bench`, and scripts/bench."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct

from pipeline import __version__
from pipeline.errors import PipelineError
from pipeline.interrupts import temporary_folder
from pipeline.options import CONTEXT, Group
from pipeline.testbed.bench import baselines, constant_rate, encoder, influxd, report, throughput
from pipeline.testbed.bench import everyday as everyday_run
from pipeline.testbed.bench import flight_vs_http as flight_run
from pipeline.testbed.bench import retention as retention_run
from pipeline.testbed.bench import source_throughput as source_run
from pipeline.testbed.bench import transports as transport_run
from pipeline.testbed.bench import workloads as workload_run
from pipeline.testbed.bench.results import Figures, Throughput
from pipeline.testbed.bench.source_throughput import Format
from pipeline.testbed.harness.configurations import SANDBOX_V2
from pipeline.testbed.harness.sandboxes import running_sandbox
from pipeline.testbed.load.schedule import Shape
from pipeline.testbed.workloads.catalogue import CHANGED, NAMES

#: Pairs of bare loop and pipeline into a real database; the one with the middle ratio counts.
PAIRS = 3
#: Rounds of the encoder's comparison within a whole run.
QUICK_ROUNDS = 7

Command = Callable[..., Any]
#: A file that is written at the end of a run; checked at its start.
_FILE = click.Path(dir_okay=False, writable=True)


class BenchOptions(Struct, frozen=True):
    """The options of `bench` itself, as they are given."""

    #: Of the backlog.
    messages: int
    workers: int
    writers: int
    #: Of the load that latency is measured with: messages a second, 0 leaves it out; and how long it lasts.
    rate: float
    seconds: float
    shape: Shape
    flush_interval_ms: int
    delivery: str
    #: host:port of Iggy; empty: a sandbox.
    iggy: str
    #: "sandbox", "influxdb1", or the URL of a receiver.
    target: str
    #: Cores that only the database uses; 0: it shares all.
    database_cores: int
    compare: bool
    check: bool
    #: One of NAMES: only a backlog of its messages; "": those of `harness.telemetry`.
    workload: str

    def backlog(self, folder: Path, url: str = "", influxdb: str = SANDBOX_V2) -> Throughput:
        """Reads it into a database that only counts, or into that of `url`, whose table has the lines `influxdb`."""
        return throughput.backlog(folder, self.messages, self.workers, self.writers, url, influxdb, self.iggy,
                                  self.workload)


def _outputs(command: Command) -> Command:
    command = click.option("--html", "page", metavar="FILE", type=_FILE,
                           help="Also one HTML page, with plots.")(command)
    return click.option("--json", "as_json", is_flag=True, help="One JSON line last.")(command)


@click.group(cls=Group, context_settings=CONTEXT, invoke_without_command=True)
@_outputs
@click.option("--messages", default=400_000, show_default=True, type=click.IntRange(1), help="Of the backlog.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="Encoder processes.")
@click.option("--writers", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option("--rate", default=10_000.0, show_default=True, type=click.FloatRange(0),
              help="Messages a second of the load that latency is measured with; 0 leaves it out.")
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(1), help="How long that load lasts.")
@click.option("--shape", default="steady", show_default=True, type=click.Choice(["steady", "ramp", "burst"]))
@click.option("--flush-interval-ms", default=100, show_default=True, type=click.IntRange(1, 3_600_000))
@click.option("--delivery", default="batched", show_default=True, type=click.Choice(["batched", "low_latency"]))
@click.option("--iggy", default="", metavar="HOST:PORT",
              help="Server with user and password iggy; a sandbox when left out.")
@click.option("--target", default="sandbox", show_default=True,
              help="sandbox: a receiver that counts; influxdb1: Debian's influxd; or the URL of a receiver.")
@click.option("--database-cores", default=0, show_default=True, type=click.IntRange(0),
              help="With influxdb1: so many cores for it alone, the others for all else; 0: all share all.")
@click.option("--compare", is_flag=True, help="The same messages through influxdb-client, influxdb3-python and a loop.")
@click.option("--workload", default="", metavar="NAME",
              help="Only a backlog of messages of one kind of producer, with their mapping: one of those of "
                   "scripts/bench workloads.")
@click.option("--check", is_flag=True,
              help="Only compare the encoder with loops by hand, on all workloads; 1 when it is too slow.")
@click.pass_context
def bench(ctx: click.Context, /, as_json: bool, page: str | None, **given: Any) -> None:
    """Measures the pipeline: a backlog, and a load at a held rate.

    The backlog gives throughput and CPU a message, the load latency, CPU and memory over time. Without options
    everything is a sandbox on this machine. Figures compare with others of the same run only.
    """
    if ctx.invoked_subcommand is not None:
        return
    options = msgspec.convert(given, BenchOptions)
    _check_names([options.workload] if options.workload else [])
    if options.check:
        figures = Figures(about=_about("encoder"), encoder=encoder.measure())
        _out(figures, as_json, page)
        click.echo(encoder.verdict(figures.encoder["ratio_to_generic_encoder"]), err=as_json)
        table = workload_run.measure()
        click.echo(f"{workload_run.text(table)}\n{workload_run.verdict(table)}", err=as_json)
        fast = encoder.is_fast_enough(figures.encoder["ratio_to_generic_encoder"])
        ctx.exit(0 if fast and workload_run.is_fast_enough(table) else 1)
    with _folder() as folder:
        figures = _measured(folder, options)
    _out(figures, as_json, page)


def _measured(folder: Path, options: BenchOptions) -> Figures:
    figures = Figures(about=_about(options.target), encoder=encoder.measure(QUICK_ROUNDS))
    _backlog(folder, figures, options)
    if options.rate and not options.workload and options.target in ("sandbox", "influxdb1"):
        load = msgspec.structs.replace(constant_rate.default_load(options.rate, options.seconds), shape=options.shape,
                                       partitions=throughput.PARTITIONS)
        with _database(folder, options) as url:
            figures.held = constant_rate.hold(_below(folder, "held"), load, options.workers, options.writers,
                                              options.flush_interval_ms, options.delivery, options.iggy, url)
    if options.compare:
        with running_sandbox(folder, "--only", "influxdb", "--count-only") as counting:
            figures.baselines = baselines.compare(counting.influxdb)
    return figures


@bench.command()
@_outputs
def idle(as_json: bool, page: str | None) -> None:
    """CPU of the whole pipeline while there is nothing to read."""
    with _folder() as folder:
        found = throughput.idle(folder)
    figures = Figures(about=_about("sandbox") | {name: str(value) for name, value in found.items()})
    if page:
        Path(page).write_text(report.html(figures))
    click.echo(report.text(figures), err=as_json)
    if as_json:
        click.echo(json.dumps(found))


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--rates", default=",".join(map(str, everyday_run.RATES)), show_default=True, metavar="N,N,...",
              help="Messages a second.")
@click.option("--partitions", default=",".join(map(str, everyday_run.PARTITIONS)), show_default=True,
              metavar="N,N,...")
@click.option("--seconds", default=11.0, show_default=True, type=click.FloatRange(2), help="For each rate.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="Encoder processes.")
@click.option("--writers", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option("--flush-interval-ms", default=0, type=click.IntRange(0, 3_600_000), help="0: the default.")
@click.option("--delivery", default="batched", show_default=True, type=click.Choice(["batched", "low_latency"]))
@click.option("--iggy", default="", metavar="HOST:PORT",
              help="Server with user and password iggy; a sandbox when left out.")
@click.option("--source", "measurements", default="", metavar="N,N,...",
              help="Instead: a source of so many measurements without new points.")
def everyday(as_json: bool, rates: str, partitions: str, seconds: float, workers: int, writers: int,
             flush_interval_ms: int, delivery: str, iggy: str, measurements: str) -> None:
    """CPU, write requests, latency and memory at the rates that most installations have."""
    if measurements:
        _idle_source(_numbers("--source", measurements), seconds, as_json)
        return
    options = f'workers = {workers}\nwriters = {writers}\ndelivery = "{delivery}"\n'
    if flush_interval_ms:
        options += f"flush_interval_ms = {flush_interval_ms}\n"
    runs = []
    with _folder() as folder:
        for found in everyday_run.measure(folder, _numbers("--rates", rates), _numbers("--partitions", partitions),
                                          seconds, options, iggy):
            click.echo(everyday_run.text(found), err=as_json)
            runs.append(found)
    if as_json:
        click.echo(msgspec.json.encode({"everyday": runs}).decode())


def _idle_source(measurements: list[int], seconds: float, as_json: bool) -> None:
    from pipeline.testbed.bench import everyday_source

    runs = []
    with _folder() as folder:
        for found in everyday_source.measure(folder, measurements, seconds):
            click.echo(everyday_source.text(found), err=as_json)
            runs.append(found)
    if as_json:
        click.echo(msgspec.json.encode({"source": runs}).decode())


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--messages", default=1_000_000, show_default=True, type=click.IntRange(1))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256))
@click.option("--data", default="telemetry", show_default=True, type=click.Choice(["telemetry", "adversary"]),
              help="adversary: a new device in each message, in sixteen shapes.")
def memory(as_json: bool, messages: int, workers: int, data: str) -> None:
    """Memory of the whole pipeline with the database down and a backlog in Iggy; then it catches up."""
    from pipeline.testbed.bench.memory import measure

    with _folder() as folder:
        found = measure(folder, messages, workers, data)
    click.echo("\n".join(f"{name}: {value}" for name, value in found.items()), err=as_json)
    if as_json:
        click.echo(json.dumps(found))


@bench.command()
@_outputs
def encode(as_json: bool, page: str | None) -> None:
    """The compiled mapping with gzip against a plain loop over a decoded dict without, in turns."""
    _out(Figures(about=_about("encoder"), encoder=encoder.measure()), as_json, page)


def _check_names(names: Sequence[str]) -> None:
    """Raises PipelineError for the name of no workload."""
    unknown = [name for name in names if name not in (*NAMES, *CHANGED)]
    if unknown:
        raise PipelineError(f"{unknown[0]}: there is no such workload; give some of {', '.join((*NAMES, *CHANGED))}")


@bench.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--telegraf", metavar="PATH", type=click.Path(dir_okay=False, exists=True),
              help="Also Telegraf's whole process, where it can do the same.")
def workloads(names: tuple[str, ...], as_json: bool, telegraf: str | None) -> None:
    """The mapping against a loop by hand, for messages of many kinds: CPU of both with gzip, in turns.

    All workloads, or those named: also steps, jq and function, which change the messages first. Both have to write the
    same points.
    """
    _check_names(names)
    table = workload_run.measure(names or NAMES, telegraf or "")
    click.echo(workload_run.text(table), err=as_json)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(table)))


@bench.command("presets")
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
def presets(as_json: bool) -> None:
    """CPU of a message of each preset, with gzip: the message of its first case."""
    from pipeline.testbed.bench.presets import measure, text

    found = list(measure())
    click.echo(text(found), err=as_json)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found)))


@bench.command("keys")
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--keys", default=100_000, show_default=True, type=click.IntRange(10_000))
def data_keys(as_json: bool, keys: int) -> None:
    """Messages whose keys are data: memory and CPU of an encoder, and what it learns of them."""
    from pipeline.testbed.bench.data_keys import measure, text

    found = measure(keys)
    click.echo(text(found), err=as_json)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found)))


@bench.command()
@_outputs
@click.option("--messages", default=1_000_000, show_default=True, type=click.IntRange(1))
@click.option("--workers", default="", metavar="N,N,...", help="Encoder processes; 1, 2, 4, ... up to the cores.")
@click.option("--writers", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option("--svg", metavar="FILE", type=_FILE, help="The plot alone.")
def scaling(as_json: bool, page: str | None, messages: int, workers: str, writers: int, svg: str | None) -> None:
    """CPU a message by process with more and more encoders, and where the next limit is."""
    figures = Figures(about=_about("sandbox"))
    counts = _numbers("--workers", workers) if workers else _powers()
    for count in counts:
        with _folder() as folder:
            figures.scaling.append(throughput.backlog(folder, messages, count, writers))
    if svg:
        Path(svg).write_text(report.scaling_plot(figures.scaling))
    _out(figures, as_json, page)


class _CaseOption(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    """TOPICS,PARTITIONS,PIPELINES."""

    name = "case"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fails for anything but three numbers from 1 on."""
        if not isinstance(value, str):
            return value
        numbers = value.split(",")
        if len(numbers) != 3 or not all(one.isdecimal() and int(one) for one in numbers):
            self.fail(f"{value}: give TOPICS,PARTITIONS,PIPELINES, such as 200,5,1", param, ctx)
        return tuple(map(int, numbers))


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--case", "cases", multiple=True, metavar="T,P,N", type=_CaseOption(),
              help="T topics of P partitions each, read by N pipelines; may be given again. Several by default.")
@click.option("--messages", default=200_000, show_default=True, type=click.IntRange(1_000), help="Of each case.")
@click.option("--seconds", default=6.0, show_default=True, type=click.FloatRange(0.1),
              help="How long the CPU without messages is measured.")
@click.option("--iggy", default="", metavar="HOST:PORT",
              help="Server with user and password iggy; a sandbox when left out. On this machine its CPU is measured, "
                   "too.")
@click.option("--svg", metavar="FILE", type=_FILE, help="The plot of the law: messages a second by hosts.")
@click.option("--cost-svg", metavar="FILE", type=_FILE, help="The plot of the costs.")
def scale(as_json: bool, cases: tuple[tuple[int, int, int], ...], messages: int, seconds: float, iggy: str,
          svg: str | None, cost_svg: str | None) -> None:
    """What topics, partitions and pipelines cost in CPU, memory and time to start, and what many hosts can do."""
    from pipeline.testbed.bench import scale as scale_run
    from pipeline.testbed.bench import scale_law

    found = []
    with _folder() as folder:
        chosen = [scale_law.Case(*case) for case in cases] or scale_run.CASES
        for one in scale_run.measure(folder, chosen, messages, seconds, iggy):
            click.echo(scale_law.text(one), err=as_json)
            found.append(one)
    click.echo(scale_law.law_text(found), err=as_json)
    if svg:
        Path(svg).write_text(scale_law.law_plot(found[0].cpu_us_per_message, found[0].iggy_us_per_message))
    if cost_svg:
        Path(cost_svg).write_text(scale_law.cost_plot(found))
    if as_json:
        click.echo(msgspec.json.encode({"scale": found}).decode())


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--points", default=1_000_000, show_default=True, type=click.IntRange(1_000))
@click.option("--page-sizes", default="5000,50000,200000", show_default=True, metavar="N,N,...")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="Converter processes.")
@click.option("--format", "format_", default="json", show_default=True,
              type=click.Choice(["json", "line_protocol", "msgpack"]))
@click.option("--windows", default="1", show_default=True, metavar="N,N,...", help="Windows that are read at a time.")
@click.option("--database-cores", default=0, show_default=True, type=click.IntRange(0),
              help="Cores that only InfluxDB has; 0: all share all.")
@click.option("--latency-ms", default=0.0, show_default=True, type=click.FloatRange(0), help="Of requests to InfluxDB.")
def source(as_json: bool, page_sizes: str, windows: str, format_: Format, **options: Any) -> None:
    """The other direction: Debian's influxd to the sandbox's Iggy, for each page_size and number of windows."""
    runs = []
    task = source_run.Task(format=format_, **options)
    with _folder() as folder:
        for found in source_run.measure(folder, task, _numbers("--page-sizes", page_sizes),
                                        _numbers("--windows", windows)):
            click.echo(source_run.text(found), err=as_json)
            runs.append(found)
    if as_json:
        click.echo(source_run.to_json(runs))


@bench.command()
@click.argument("connection_strings", nargs=-1, required=True, metavar="CONNECTION_STRING...")
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--messages", default=1_000_000, show_default=True, type=click.IntRange(1_000))
@click.option("--turns", default=3, show_default=True, type=click.IntRange(1, 100), help="Of each transport.")
def transports(connection_strings: tuple[str, ...], as_json: bool, messages: int, turns: int) -> None:
    """A backlog out of a real Iggy over several transports, in turns: iggy+tcp://iggy:iggy@127.0.0.1:8090 ..."""
    configs = [transport_run.config_of(given) for given in connection_strings]
    runs = []
    with _folder() as folder:
        for run in transport_run.measure(folder, configs, messages, turns):
            click.echo(f"{run.transport}: {run.messages_per_second:,} messages/s, {run.total_us} us", err=as_json)
            runs.append(run)
    click.echo(transport_run.text(runs), err=as_json)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(runs)))


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--points", default=200_000, show_default=True, type=click.IntRange(1_000))
@click.option("--page-size", default=50_000, show_default=True, type=click.IntRange(100, 200_000))
@click.option("--turns", default=5, show_default=True, type=click.IntRange(1, 100), help="Of each transport.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="Converter processes.")
def flight(as_json: bool, points: int, page_size: int, turns: int, workers: int) -> None:
    """The sandbox's InfluxDB 3 read as JSON lines and over Arrow Flight, in turns."""
    found = flight_run.Compared()
    with _folder() as folder:
        for transport, reading in flight_run.turns_of(folder, points, page_size, turns, workers):
            found.add(transport, reading)
            click.echo(f"{transport}: {source_run.reading_text(reading)}", err=as_json)
    click.echo(flight_run.text(found.figures()), err=as_json)
    if as_json:
        click.echo(flight_run.to_json(found))


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--messages", default=200_000, show_default=True, type=click.IntRange(1_000))
@click.option("--pairs", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="Encoder processes.")
def retention(as_json: bool, messages: int, pairs: int, workers: int) -> None:
    """Debian's influxd with a fifth of the lines outside the retention, against none, in turns."""
    with _folder() as folder:
        found = retention_run.measure(folder, messages, pairs, workers)
    click.echo(retention_run.text(found), err=as_json)
    if as_json:
        click.echo(retention_run.to_json(found))


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--messages", default=1_000_000, show_default=True, type=click.IntRange(1_000))
@click.option("--turns", default=3, show_default=True, type=click.IntRange(1, 100), help="Of each kind.")
@click.option("--every", "every_seconds", default=1.0, show_default=True, type=click.FloatRange(0.01),
              help="Seconds between two scrapes.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="Encoder processes.")
def scrape(as_json: bool, messages: int, turns: int, every_seconds: float, workers: int) -> None:
    """A backlog while /metrics is scraped, against one while nobody asks, in turns."""
    from pipeline.testbed.bench import scrape as scrape_run

    found = []
    with _folder() as folder:
        for turn in scrape_run.measure(folder, messages, turns, workers, every_seconds):
            click.echo(scrape_run.text(turn), err=as_json)
            found.append(turn)
    ratios = scrape_run.ratios(found)
    click.echo(f"scraped / unasked: {ratios['messages_per_second']:g} of the rate, {ratios['cpu_us_per_message']:g} of "
               "the CPU", err=as_json)
    if as_json:
        click.echo(msgspec.json.encode({"scrape": found, "ratios": ratios}).decode())


def _numbers(option: str, given: str) -> list[int]:
    try:
        return [int(number) for number in given.split(",")]
    except ValueError:
        raise PipelineError(f"{option} {given}: give numbers with commas between them") from None


def _backlog(folder: Path, figures: Figures, options: BenchOptions) -> None:
    """The backlog into the target; into a real database beside a bare loop, each into an empty one."""
    target = options.target
    if target == "sandbox":
        figures.throughput = options.backlog(_below(folder, "backlog"))
    elif target == "influxdb1":
        with influxd.cores_apart(options.database_cores) as cores:
            pairs = [_pair(_below(folder, f"pair-{number}"), options, cores) for number in range(PAIRS)]
        pairs.sort(key=lambda pair: pair[1].messages_per_second / pair[0])
        figures.bare_lines_per_second, figures.throughput = pairs[len(pairs) // 2]
        figures.ratio_to_bare_loop = round(figures.throughput.messages_per_second / figures.bare_lines_per_second, 2)
    elif target.startswith(("http://", "https://")):
        figures.throughput = options.backlog(_below(folder, "backlog"), target)
    else:
        raise PipelineError(f"--target {target}: give sandbox, influxdb1, or a URL")


@contextmanager
def _database(folder: Path, options: BenchOptions) -> Iterator[str]:
    """The URL of an empty InfluxDB 1.x for the held load while the block lasts; "" where the target isn't one."""
    if options.target != "influxdb1":
        yield ""
        return
    with influxd.cores_apart(options.database_cores) as apart, \
            influxd.influxd(folder / "held-database", apart) as server:
        yield server.url


def _pair(folder: Path, options: BenchOptions, cores: set[int]) -> tuple[int, Throughput]:
    """Lines a second of the bare loop, and our run after it; each into an empty database on `cores`."""
    with influxd.influxd(_below(folder, "bare"), cores) as server:
        bare = influxd.bare_loop(server.url, options.messages)
    with influxd.influxd(_below(folder, "ours"), cores) as server:
        return bare, options.backlog(_below(folder, "backlog"), server.url, influxd.INFLUXDB1)


def _powers() -> list[int]:
    cores = len(os.sched_getaffinity(0))
    return [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= max(cores, 2)]


def _about(target: str) -> dict[str, str]:
    return {"pipeline": __version__, "when": time.strftime("%Y-%m-%d %H:%M:%S %z"), "python": platform.python_version(),
            "cores": str(len(os.sched_getaffinity(0))), "target": target}


def _below(folder: Path, name: str) -> Path:
    below = folder / name
    below.mkdir()
    return below


@contextmanager
def _folder() -> Iterator[Path]:
    with temporary_folder("pipeline-bench-") as folder:
        yield folder


def _out(figures: Figures, as_json: bool, page: str | None) -> None:
    click.echo(report.text(figures), err=as_json)
    if page:
        Path(page).write_text(report.html(figures))
    if as_json:
        click.echo(json.dumps(figures.to_json()))
