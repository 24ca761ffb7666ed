"""The same backlog out of a real Iggy over each of its transports, in turns."""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from pipeline.config.iggy_connection_string import expanded
from pipeline.config.iggy_schema import IggyConfig
from pipeline.errors import PipelineError
from pipeline.testbed.bench.throughput import PARTITIONS, RUN_SECONDS, cpu_us
from pipeline.testbed.harness import telemetry
from pipeline.testbed.harness.runs import SinkRun, is_settled
from pipeline.testbed.harness.sandboxes import running_sandbox


class TransportRun(Struct, frozen=True):
    """One run over one transport. `ingest_us` and `total_us`: microseconds of CPU a message."""

    transport: str
    messages_per_second: int
    ingest_us: float
    total_us: float
    #: Messages a second that one sender got confirmed, 1,000 a request; with making them.
    sent_per_second: int


def config_of(connection_string: str) -> IggyConfig:
    """`[iggy]` for a connection string. Raises PipelineError."""
    config, problems = expanded(IggyConfig(connection_string=connection_string))
    if problems:
        raise PipelineError(problems[0])
    return config


def label(config: IggyConfig) -> str:
    """Names the transport."""
    return config.transport + (" + TLS" if config.tls.enabled else "")


def measure(folder: Path, configs: Sequence[IggyConfig], messages: int, turns: int) -> Iterator[TransportRun]:
    """Runs each of them `turns` times. Raises PipelineError."""
    for turn in range(turns):
        for number, config in enumerate(configs):
            yield _run(folder / f"{turn}-{number}", config, messages)


def _run(folder: Path, config: IggyConfig, messages: int) -> TransportRun:
    folder.mkdir()
    stream = f"pipeline-bench-{secrets.token_hex(4)}"
    try:
        began = time.monotonic()
        telemetry.produce_now(config, messages, PARTITIONS, stream)
        sent_per_second = round(messages / (time.monotonic() - began))
        with running_sandbox(folder, "--only", "influxdb", "--count-only") as counting:
            sink = replace(telemetry.sink_of(counting.influxdb, stream=stream, options="workers = 2\n"),
                           iggy_options=_options(config))
            with SinkRun(folder, sink.text(config.servers()[0], folder / "run")) as run:
                status = run.wait_for(lambda s: is_settled(s, messages), "the last message", RUN_SECONDS)
                cpu = cpu_us(run.pids(), status.startup_cpu, messages)
                if run.stop() != 0 or status.rejected:
                    raise PipelineError(f"the run went wrong; the log says:\n{run.log()}")
    finally:
        telemetry.delete_stream(config, stream)
    seconds = status.last_settled_at - status.first_dispatched_at
    return TransportRun(label(config), round(messages / seconds), cpu["ingest"], cpu["total"], sent_per_second)


def _options(config: IggyConfig) -> str:
    """The lines of `[iggy]` beside the address."""
    login = {"token": config.token} if config.token else {"username": config.username, "password": config.password}
    lines = {"transport": config.transport, **login, "tls.enabled": config.tls.enabled,
             "tls.ca_file": config.tls.ca_file, "tls.domain": config.tls.domain}
    if config.is_encrypted():
        lines["tls.validate_certificate"] = config.tls.validate_certificate
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())


def text(runs: Sequence[TransportRun]) -> str:
    """A table: of each transport the middle run by throughput."""
    lines = [f"{'transport':<18}{'messages/s':>12}{'ingest us':>12}{'total us':>12}{'sent/s':>12}"]
    for name in dict.fromkeys(run.transport for run in runs):
        own = sorted((run for run in runs if run.transport == name), key=lambda run: run.messages_per_second)
        middle = own[len(own) // 2]
        lines.append(f"{name:<18}{middle.messages_per_second:>12,}{middle.ingest_us:>12.2f}{middle.total_us:>12.2f}"
                     f"{max(run.sent_per_second for run in own):>12,}")
    return "\n".join(lines)
