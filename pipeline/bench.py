"""Measures the pipeline on the sandbox: throughput, CPU a message by process, idle CPU, and the encoder's gain.

Run by `scripts/bench`. Figures of one machine compare with others of the same run only.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from pipeline import rig, wire
from pipeline.schema import MappingConfig
from stages.influxdb.body import compress

PARTITIONS = 2
IDLE_SECONDS = 5.0
#: Rounds, and messages of each, that the encoders are timed for.
ENCODE_ROUNDS = 15
ENCODE_MESSAGES = 5_000
#: Longest a run may take, seconds.
RUN_SECONDS = 300.0
MAPPING = MappingConfig(
    tag_fields=("site", "device"), field_strategy="explicit",
    field_names=("temperature", "humidity", "pressure", "battery", "ok"),
    timestamp_from="field", timestamp_field="ts", timestamp_format="epoch_ms")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--messages", default=400_000, show_default=True, type=click.IntRange(1))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256))
@click.option("--writers", default=2, show_default=True, type=click.IntRange(1, 64))
@click.pass_context
def main(ctx: click.Context, as_json: bool, messages: int, workers: int, writers: int) -> None:
    """End to end: sandbox broker -> pipeline -> a receiver that only counts."""
    if ctx.invoked_subcommand is None:
        with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as folder:
            _print(_end_to_end(Path(folder), messages, workers, writers), as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
def idle(as_json: bool) -> None:
    """CPU of the whole pipeline while there is nothing to read."""
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as folder:
        _print(_idle(Path(folder)), as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
def encode(as_json: bool) -> None:
    """The compiled mapping with gzip against a plain loop over a decoded dict without, in turns."""
    _print(_encode(), as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--messages", default=1_000_000, show_default=True, type=click.IntRange(1))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256))
def memory(as_json: bool, messages: int, workers: int) -> None:
    """Memory of the whole pipeline with the database down and a backlog in Iggy; then it catches up."""
    from pipeline.bench_memory import measure

    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as folder:
        _print(measure(Path(folder), messages, workers), as_json)


def _print(figures: dict[str, Any], as_json: bool) -> None:
    for name, value in figures.items():
        if isinstance(value, dict):
            click.echo(f"{name}: " + ", ".join(f"{k} {v}" for k, v in value.items()), err=as_json)
        else:
            click.echo(f"{name}: {value:,}", err=as_json)
    if as_json:
        click.echo(json.dumps(figures))


def _end_to_end(folder: Path, messages: int, workers: int, writers: int) -> dict[str, Any]:
    """Sends all messages first, then runs the pipeline over them. Start-up is not counted."""
    broker, iggy = rig.start_sandbox(folder, "--only", "iggy")
    receiver, influxdb = rig.start_sandbox(folder, "--only", "influxdb", "--count-only")
    run = None
    try:
        rig.produce_now(iggy.iggy, messages, PARTITIONS)
        run = rig.PipelineRun(folder, iggy.iggy, influxdb.influxdb, workers, f"writers = {writers}\n")
        status = run.wait_for(lambda s: s.written + s.rejected >= messages, RUN_SECONDS, "the last message")
        cpu = _cpu_us(run, status, messages)
        if run.stop() != 0 or status.rejected:
            raise click.ClickException(f"the run went wrong; the log says:\n{run.log.read_text()}")
    finally:
        for process in (run.process if run else None, broker, receiver):
            if process is not None:
                process.kill()
                process.wait()
    seconds = status.last_settled_at - status.first_dispatched_at
    return {"messages": messages, "messages_per_second": round(messages / seconds), "cpu_us_per_message": cpu,
            "bytes_per_point": round(status.sent_bytes / status.written, 1)}


def _cpu_us(run: rig.PipelineRun, status: wire.Status, messages: int) -> dict[str, float]:
    """Microseconds of CPU a message, by kind of process and in total, less what start-up cost."""
    cpu: dict[str, float] = {}
    for name, pid in status.pids.items():
        if name in status.startup_cpu and name != "supervisor":
            kind = name.partition("-")[0]
            cpu[kind] = cpu.get(kind, 0.0) + rig.cpu_seconds(pid) - status.startup_cpu[name]
    by_process = {kind: round(seconds / messages * 1e6, 3) for kind, seconds in sorted(cpu.items())}
    return {"total": round(sum(by_process.values()), 3), **by_process}


def _idle(folder: Path) -> dict[str, Any]:
    sandbox, addresses = rig.start_sandbox(folder)
    run = None
    try:
        rig.produce_now(addresses.iggy, 10, PARTITIONS)
        run = rig.PipelineRun(folder, addresses.iggy, addresses.influxdb, 2)
        run.wait_for(lambda s: s.ready and s.written == 10, rig.READY_SECONDS, "the first points")
        until = time.monotonic() + 2
        while time.monotonic() < until:  # the pauses grow to their full length
            run.watch(0.5)
        pids = run.pids()
        before = {name: rig.cpu_seconds(pid) for name, pid in pids.items()}
        began = time.monotonic()
        while time.monotonic() < began + IDLE_SECONDS:
            run.watch(0.5)
        seconds = time.monotonic() - began
        percent = {name: round((rig.cpu_seconds(pid) - before[name]) / seconds * 100, 2) for name, pid in pids.items()}
        return {"idle_cpu_percent": round(sum(percent.values()), 2), "idle_cpu_percent_by_process": percent}
    finally:
        for process in (run.process if run else None, sandbox):
            if process is not None:
                process.kill()
                process.wait()


def _encode() -> dict[str, Any]:
    from stages.mapping.encoder import BatchOrigin, Encoder

    payloads = [rig.telemetry(index) for index in range(ENCODE_MESSAGES)]
    encoder, origin = Encoder(MAPPING, "ms", rig.STREAM, rig.TOPIC), BatchOrigin()
    if encoder.encode(payloads, origin).body != plain_loop(payloads):
        raise click.ClickException("the two encoders differ")
    compiled, generic = [], []
    for _ in range(ENCODE_ROUNDS):
        compiled.append(_timed(lambda: compress(encoder.encode(payloads, origin).body)))
        generic.append(_timed(lambda: plain_loop(payloads)))
    us = [statistics.median(times) / ENCODE_MESSAGES * 1e6 for times in (compiled, generic)]
    return {"compiled_us_per_message": round(us[0], 3), "generic_us_per_message": round(us[1], 3),
            "ratio_to_generic_encoder": round(us[1] / us[0], 2)}


def _escaped(text: str) -> str:
    return text.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


def plain_loop(payloads: list[bytes]) -> bytes:
    """The baseline: what one writes first, for messages that are all good. Decode to a dict, loop over its keys."""
    lines = []
    for payload in payloads:
        message = msgspec.json.decode(payload)
        line = rig.TOPIC
        for key in sorted(MAPPING.tag_fields):
            if value := message.pop(key, None):
                line += f",{_escaped(key)}={_escaped(value)}"
        time_ = message.pop(MAPPING.timestamp_field)
        fields = []
        for key, value in message.items():
            if isinstance(value, bool):
                fields.append(f"{_escaped(key)}={'true' if value else 'false'}")
            elif isinstance(value, int | float):
                fields.append(f"{_escaped(key)}={value}")
            elif isinstance(value, str):
                quoted = value.replace("\\", "\\\\").replace('"', '\\"')
                fields.append(f'{_escaped(key)}="{quoted}"')
        lines.append(f"{line} {','.join(fields)} {time_}\n")
    return "".join(lines).encode()


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main(prog_name="scripts/bench")
    sys.exit(0)
