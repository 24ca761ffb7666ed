"""`pipeline top`: a live view of the running pipeline of a configuration, in the terminal."""

import contextlib
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.commands.status import behind, progress_of, running, span
from pipeline.config.inputs import ConfigInputs
from pipeline.errors import PipelineError
from pipeline.http.client import request
from pipeline.options import Command, config_option
from pipeline.printable import printable

#: Heights of a sparkline, lowest first.
_BARS: Final = "▁▂▃▄▅▆▇█"
#: Characters of a sparkline: one for each of the last samples.
SPARK_WIDTH: Final = 60
_STATE_STYLES: Final = {"running": "bold green", "paused": "bold red", "waiting": "bold yellow"}


@click.command(cls=Command)
@config_option
@click.option("--interval", type=click.FloatRange(0.2, 3_600), default=1.0, show_default=True, metavar="SECONDS",
              help="Time between two looks.")
def top(path: ConfigInputs, interval: float) -> None:
    """Shows a running pipeline live in the terminal, until q.

    Processes, partitions and rates, with the last hour as sparklines. Without a terminal they are shown once.
    """
    config = running(path)
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False, emoji=False)
    view = TopView()
    if not console.is_terminal:
        console.print(view.shown(request(config, "GET", "/status"), request(config, "GET", "/history"), 1_000))
        return
    request(config, "GET", "/version")  # an error now ends the command, and a later one is shown until it is over
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                document, history = request(config, "GET", "/status"), request(config, "GET", "/history")
                shown: RenderableType = view.shown(document, history, console.height)
            except PipelineError as error:
                shown = Text(f"{error}\n(q ends this view)", style="bold red")
            live.update(shown, refresh=True)
            if pressed(interval) in ("q", "Q", "\x03", "\x1b"):
                return


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits so many seconds for a key, and returns it; "" for none. Without Enter, and unseen."""
    if not sys.stdin.isatty():
        def sleep(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield sleep
        return
    before = termios.tcgetattr(sys.stdin)

    def key(seconds: float) -> str:
        readable, _, _ = select.select([sys.stdin], [], [], seconds)
        return sys.stdin.read(1) if readable else ""

    try:
        tty.setcbreak(sys.stdin)
        yield key
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class TopView:
    """What is shown. Remembers the CPU time of the processes, for their share."""

    def __init__(self) -> None:
        self._cpu: dict[tuple[str, int], tuple[float, float]] = {}

    def shown(self, document: Mapping[str, Any], history: Mapping[str, Any], height: int) -> RenderableType:
        """The whole screen, `height` lines at most."""
        now, state = document["time"], document["state"]
        head = Text()
        head.append(state, style=_STATE_STYLES.get(state, "bold"))
        head.append(f"  version {document['version']}  pid {document['pid']}  up {span(now - document['started_at'])}")
        parts: list[RenderableType] = [head, *self._reasons(document, now), *_catching_up(document),
                                       self._plots(document, history)]
        used = len(parts) + 4
        processes = self._processes(document, max(3, height // 2 - used))
        parts.append(processes)
        left = height - used - processes.row_count - 4
        if document["sink"] is not None:
            parts.append(_partitions(document["sink"]["partitions"], max(3, left)))
        if document["source"] is not None:
            parts.append(_measurements(document["source"]["measurements"], max(3, left)))
        return Group(*parts)

    @staticmethod
    def _reasons(document: Mapping[str, Any], now: float) -> list[RenderableType]:
        found: list[RenderableType] = []
        for one in document["readiness"]["reasons"]:
            since = f" for {span(now - one['since'])}" if one.get("since") else ""
            who = " ".join(filter(None, (one.get("process"), one.get("name"))))
            found.append(Text(f"{'paused' if one.get('paused') else 'waits'}{since}: {who}: {printable(one['reason'])}",
                              style="red" if one.get("paused") else "yellow"))
        return found

    @staticmethod
    def _plots(document: Mapping[str, Any], history: Mapping[str, Any]) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 1))
        fields, samples = history["fields"], history["samples"]
        rates, rows = document["rates"], []
        if (sink := document["sink"]) is not None:
            rows += [("read", f"{rates['read']:,.0f}/s", "read", True),
                     ("written", f"{rates['written']:,.0f}/s", "written", True),
                     ("rejected", f"{rates['rejected']:,.1f}/s", "rejected", True),
                     ("in flight", f"{sink['in_flight']:,}", "in_flight", False),
                     ("lag", f"{sum(one['lag'] for one in sink['partitions']):,}", "lag", False)]
        if (source := document["source"]) is not None:
            oldest = max((one["behind_seconds"] for one in source["measurements"]), default=0.0)
            rows += [("sent", f"{rates['points']:,.0f}/s", "points", True),
                     ("behind", span(oldest), "behind_seconds", False)]
        for label, text, field, is_total in rows:
            at = fields.index(field)
            values = growth(samples, at) if is_total else [sample[at] for sample in samples]
            table.add_row(label, Text(text, justify="right"), Text(sparkline(values), style="cyan"))
        return table

    def _processes(self, document: Mapping[str, Any], most: int) -> Table:
        table = Table(box=None, header_style="bold", padding=(0, 1), expand=True)
        table.add_column("process", no_wrap=True, min_width=max(map(len, _names(document)), default=7))
        for name, width in (("pid", 7), ("CPU", 4), ("memory", 7), ("restarts", 8)):
            table.add_column(name, justify="right", no_wrap=True, min_width=width)
        table.add_column("state", no_wrap=True, ratio=1)
        seen = {}
        for one in document["processes"]:
            key = one["name"], one["pid"]
            share = ""
            if (cpu := one["cpu_seconds"]) is not None:
                before = self._cpu.get(key)
                seen[key] = document["time"], cpu
                if before is not None and document["time"] > before[0]:
                    share = f"{max(0.0, cpu - before[1]) / (document['time'] - before[0]):.0%}"
            if table.row_count < most:
                table.add_row(printable(one["name"]), str(one["pid"] or ""), share,
                              f"{one['rss_bytes'] / 1e6:.0f} MB" if one["rss_bytes"] else "", str(one["restarts"]),
                              condition(one))
        self._cpu = seen
        if (more := len(document["processes"]) - table.row_count) > 0:
            table.add_row(f"{more} more", "", "", "", "", "")
        return table


def _catching_up(document: Mapping[str, Any]) -> list[RenderableType]:
    """A line for each source that is catching up."""
    sources = document["source"]["sources"] if document["source"] is not None else []
    return [Text(f"{printable(one['source'])}: {progress_of(one)}", style="cyan")
            for one in sources if one["share"] < 1]


def _names(document: Mapping[str, Any]) -> list[str]:
    return [printable(one["name"]) for one in document["processes"]]


def condition(process: Mapping[str, Any]) -> Text:
    """What a process does, in a few words."""
    if process["waits_for"]:
        return Text(f"waits: {printable(process['waits_for'])}", style="yellow")
    if process["remote"]:
        return Text("on another machine")
    if not process["pid"]:
        return Text("not running", style="red")
    if (process["silent_seconds"] or 0) > 5:
        return Text(f"silent for {span(process['silent_seconds'])}", style="red")
    return Text("runs", style="green")


def _partitions(partitions: Sequence[Mapping[str, Any]], most: int) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in ("topic", "partition", "committed", "end", "lag", "lag, time"):
        table.add_column(name, justify="left" if name == "topic" else "right", no_wrap=True)
    ordered = sorted(partitions, key=lambda one: (-one["lag"], one["stream"], one["topic"], one["partition"]))
    for one in ordered[:most]:
        seconds = one["lag_seconds"]
        table.add_row(printable(f"{one['stream']}/{one['topic']}"), str(one["partition"]), str(one["committed"]),
                      str(one["end"]), f"{one['lag']:,}", "" if seconds is None else span(seconds))
    if len(ordered) > most:
        table.add_row(f"{len(ordered) - most} more", "", "", "", "", "")
    return table


def _measurements(measurements: Sequence[Mapping[str, Any]], most: int) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in ("source", "measurement", "behind", "in flight"):
        table.add_column(name, justify="left" if name in ("source", "measurement") else "right", no_wrap=True)
    ordered = sorted(measurements, key=lambda one: -one["behind_seconds"])
    for one in ordered[:most]:
        table.add_row(printable(one["source"]), printable(one["measurement"]), behind(one),
                      str(one["in_flight"]))
    if len(ordered) > most:
        table.add_row(f"{len(ordered) - most} more", "", "", "")
    return table


def growth(samples: Sequence[Sequence[float]], at: int) -> list[float]:
    """The rates of a total between samples, whose first value is their time. A smaller total counts from 0 again."""
    return [(new[at] - old[at] if new[at] >= old[at] else new[at]) / max(0.001, new[0] - old[0])
            for old, new in zip(samples, samples[1:], strict=False)]


def sparkline(values: Sequence[float]) -> str:
    """The last SPARK_WIDTH values as bars; the highest of them is the full height."""
    last = values[-SPARK_WIDTH:]
    most = max(last, default=0)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / most * len(_BARS)))] if most > 0 else _BARS[0]
                   for value in last)
