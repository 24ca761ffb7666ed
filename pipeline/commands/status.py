"""`pipeline status`: what the running pipeline of a configuration does."""

import time
from collections.abc import Mapping
from typing import Any, Final

import click
import msgspec

from pipeline.commands.config import load_config
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import DATABASE, SOURCE_CONNECTION
from pipeline.errors import ConfigError
from pipeline.http.client import NotRunning, Running, request
from pipeline.options import Command, config_option

#: Tables and keys that identify no pipeline.
UNUSED = (*DATABASE, *SOURCE_CONNECTION, "mapping", "dead_letters", "tests", "iggy.password",
          "iggy.password_file", "iggy.token", "iggy.token_file", "iggy.tls", "http", "otlp")

#: Watermarks before this time, seconds since 1970, are those of measurements that have not begun: from "earliest".
BEFORE_ANY: Final = -9_000_000_000


def running(path: ConfigInputs) -> Running:
    """What the running pipeline of a configuration is found by. One with mistakes is named in a warning."""
    try:
        return Running(load_config(path, unused=UNUSED), path.files)
    except ConfigError as error:
        found = Running(None, path.files)
        try:
            request(found, "GET", "/version")
        except NotRunning:
            raise error from None
        click.echo("pipeline: warning: the configuration has mistakes by now, which pipeline config check names; this "
                   "is about the pipeline that runs with its files", err=True)
        return found


@click.command(cls=Command)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def status(path: ConfigInputs, as_json: bool) -> None:
    """Shows what the running pipeline of a configuration does."""
    found = request(running(path), "GET", "/status")
    click.echo(msgspec.json.format(msgspec.json.encode(found)).decode() if as_json else "\n".join(described(found)))


def described(document: dict[str, Any]) -> list[str]:
    """The lines that people read."""
    now = document["time"]
    lines = [f"{document['state']}, version {document['version']}, process {document['pid']}, since "
             f"{_ago(now, document['started_at'])}"]
    for reason in document["readiness"]["reasons"]:
        since = f" for {span(now - reason['since'])}" if reason.get("since") else ""
        lines.append(f"  {'paused' if reason.get('paused') else 'waits'}{since}: "
                     f"{' '.join(filter(None, (reason.get('process'), reason.get('name'))))}: {reason['reason']}")
    rates = document["rates"]
    if sink := document["sink"]:
        lines.append(f"sink: read {sink['read']:,} messages ({rates['read']:,.0f}/s), written {sink['written']:,} "
                     f"points ({rates['written']:,.0f}/s), rejected {sink['rejected']:,}, "
                     f"in flight {sink['in_flight']:,}")
        lines += [f"  {one['stream']}/{one['topic']} partition {one['partition']}: committed {one['committed']}, lag "
                  f"{one['lag']:,}{_age(one['lag_seconds'])}" for one in sink["partitions"]]
    if source := document["source"]:
        lines.append(f"source: sent {source['points']:,} points ({rates['points']:,.0f}/s) in {source['messages']:,} "
                     f"messages, rejected {source['rejected']:,}, {source['in_flight']} pages in flight")
        lines += [f"  {one['source']}: {progress_of(one)}" for one in source["sources"] if one["share"] < 1]
        lines += [f"  {one['source']}: {one['late']:,} points were late and missed: the log has what to do"
                  for one in source["sources"] if one["late"]]
        lines += [f"  {one['source']}: {one['measurement']}: {behind(one)}" for one in source["measurements"]]
    lines += [_process(one) for one in document["processes"]]
    return lines


def progress_of(source: Mapping[str, Any]) -> str:
    """How far a source has caught up with what there was at its start, and about how long the rest takes."""
    left = source["seconds_left"]
    return f"{int(source['share'] * 100)} % of the time caught up" + ("" if left is None else
                                                                       f", about {span(left)} left")


def behind(measurement: Mapping[str, Any]) -> str:
    """How far a measurement is behind. Before its first point is found, its watermark is long before any."""
    if measurement["watermark"] <= BEFORE_ANY:
        return "not begun"
    share = f" ({int(measurement['share'] * 100)} %)" if measurement["share"] < 1 else ""
    return f"{span(measurement['behind_seconds'])} behind{share}"


def _process(one: dict[str, Any]) -> str:
    place = "on another machine" if one["remote"] else f"process {one['pid']}" if one["pid"] else "not running"
    used = f", CPU {one['cpu_seconds']:.1f} s, {one['rss_bytes'] / 1e6:.0f} MB" if one["rss_bytes"] else ""
    times = "once" if one["restarts"] == 1 else f"{one['restarts']} times"
    restarts = f", restarted {times}: {one['last_death']}" if one["restarts"] else ""
    return f"{one['name']}: {place}{used}{restarts}"


def _age(seconds: float | None) -> str:
    return f" ({span(seconds)})" if seconds else ""


def _ago(now: float, then: float) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(then))} ({span(now - then)})" if then else "unknown"


def span(seconds: float) -> str:
    """A time in words, in the unit that fits."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
