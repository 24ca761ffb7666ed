"""A bounded run with random faults, and the account of every message at its end. Run by `scripts/chaos`.

A producer sends numbered messages, some of them bad, through a sandbox Iggy; the pipeline writes them to a sandbox
InfluxDB; meanwhile processes are killed and stopped, and both servers fail. At last everything works again, and every
message has to be a point, or a dead letter. The seed decides which faults come when.
"""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from pipeline.errors import PipelineError
from pipeline.exit import run_and_exit
from pipeline.interrupts import end_on_interrupt, temporary_folder
from pipeline.options import CONTEXT, Command
from pipeline.testbed.chaos.account import FAILURE, SHOWN_MISSING, Account, account_of
from pipeline.testbed.chaos.faults import Faults, Injected, Sandbox
from pipeline.testbed.chaos.hosts_run import HostsVerdict, run_hosts
from pipeline.testbed.chaos.producer import Producer
from pipeline.testbed.harness import telemetry
from pipeline.testbed.harness.configurations import SANDBOX_V2
from pipeline.testbed.harness.sandboxes import start_sandbox

PARTITIONS = 4
#: The consumer by default, and the group with `--group`.
CONSUMER = "pipeline"
#: Pause between two faults, seconds.
LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.5, 2.5
#: Longest wait for the last message, once everything works again, seconds.
SETTLE_SECONDS = 240.0
INFLUXDB = SANDBOX_V2 + """
connect_timeout_ms = 2_000
read_timeout_ms = 2_000
retry_backoff_ms = 50
retry_backoff_max_ms = 1_000
retry_after_max_ms = 1_000
"""
OPTIONS = """
workers = 2
readers = 2
writers = 2
batch_size = 500
flush_interval_ms = 100
window_messages = 20_000
heartbeat_timeout_ms = 3_000
max_restarts = 10_000
redelivery_timeout_ms = 10_000
log_level = "info"
"""


class ChaosRun:
    """One run, from the start of the servers to the verdict."""

    def __init__(self, folder: Path, seed: int, rate: int, console: Console, group: bool) -> None:
        """`rate` in messages a second. With `group`, the two ingest processes are members of a consumer group."""
        self.rng = random.Random(seed)
        self.console = console
        self.sandbox_process, self.addresses = start_sandbox(folder)
        self.sandbox = Sandbox(self.addresses.influxdb)
        self.sandbox.iggy("create_topic", stream=telemetry.STREAM, topic=telemetry.TOPIC, partitions=PARTITIONS)
        iggy = "call_timeout_ms = 2_000\n" + (f'consumer_group = "{CONSUMER}"\n' if group else "")
        config = telemetry.sink_of(self.addresses.influxdb, INFLUXDB, options=OPTIONS)
        self.pipeline = telemetry.sink_run(folder, self.addresses.iggy,
                                           msgspec.structs.replace(config, iggy_options=iggy))
        self.pipeline.start()
        #: Whose offsets count.
        self.consumer = f"group:{CONSUMER}" if group else CONSUMER
        self.producer = Producer(self.addresses.iggy, PARTITIONS, rate, random.Random(seed))
        self.faults = Faults(self.pipeline, self.sandbox, self.rng, self.producer.add_poisons)
        self.injected: list[tuple[float, Injected]] = []

    def inject_faults(self, seconds: float) -> None:
        """Injects faults for so long, and until every kind came once. Raises PipelineError.

        They come in random order; after every kind once, any may come.
        """
        self.pipeline.wait_for(lambda status: status.ready)
        self.producer.start()
        began = time.monotonic()
        undo: list[tuple[float, Injected]] = []
        kinds = self.faults.kinds()
        order = list(kinds)
        self.rng.shuffle(order)
        left = len(order)
        due = began + 1.0
        while (now := time.monotonic()) < began + seconds or left > 0:
            for at, fault in [entry for entry in undo if entry[0] <= now]:
                undo.remove((at, fault))
                if fault.undo is not None:
                    fault.undo()
            if now >= due:
                if not order:
                    order = [self.rng.choice(list(kinds))]
                self._inject(kinds[order.pop()](), began, undo)
                left -= 1
                due = now + self.rng.uniform(LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS)
            self.faults.watch(0.05)
        self.faults.undo_all()

    def _inject(self, fault: Injected | None, began: float, undo: list[tuple[float, Injected]]) -> None:
        if fault is None:
            return
        at = time.monotonic()
        self.injected.append((at - began, fault))
        self.console.print(f"{at - began:6.1f} s  {fault.kind}: {fault.detail}")
        if fault.undo is not None:
            undo.append((at + fault.seconds, fault))

    def settle(self) -> None:
        """Waits until all that was sent is committed. Raises PipelineError when that doesn't happen."""
        if not self.producer.stop(60):
            raise PipelineError("the producer can't get rid of its last batch")
        until = time.monotonic() + SETTLE_SECONDS
        while not self._all_committed():
            if time.monotonic() > until:
                raise PipelineError(f"timed out after {SETTLE_SECONDS:g} s waiting for the last message; "
                                    f"{self.pipeline.log_end()}")
            self.faults.watch(0.2)

    def _all_committed(self) -> bool:
        topic = next(topic for topic in self.sandbox.iggy("status")["topics"] if topic["topic"] == telemetry.TOPIC)
        return all(partition["offsets"].get(self.consumer, -1) == partition["next_offset"] - 1
                   for partition in topic["partitions"] if partition["next_offset"])

    def account(self) -> Account:
        """Compares what was sent with what is stored and what was dead-lettered."""
        return account_of(self.producer, self.sandbox, self.addresses.iggy)

    def close(self) -> None:
        """Ends everything that was started."""
        processes: list[subprocess.Popen[bytes]] = [self.pipeline.process, self.sandbox_process]
        for process in processes:
            process.kill()
            process.wait()


def table_of(injected: list[tuple[float, Injected]]) -> Table:
    """The faults by kind."""
    table = Table(title="Faults")
    table.add_column("kind")
    table.add_column("times", justify="right")
    for kind, times in sorted(Counter(fault.kind for _, fault in injected).items()):
        table.add_row(kind, str(times))
    return table


@click.command(cls=Command, context_settings=CONTEXT)
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(1),
              help="How long faults come, and until every kind came once.")
@click.option("--minutes", type=click.FloatRange(0.1), help="The same, in minutes.")
@click.option("--seed", type=int, help="Decides which faults come when; a random one by default.")
@click.option("--rate", default=1_000, show_default=True, type=click.IntRange(1, 50_000), help="Messages a second.")
@click.option("--group", is_flag=True, help="The ingest processes are a consumer group.")
@click.option("--hosts", type=click.IntRange(1, 20), metavar="NUMBER",
              help="Pipelines of one group on so many hosts (network namespaces), beside Iggy, InfluxDB and encoder; "
                   "links fail, and hosts vanish. Root only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line last.")
@click.option("--keep-log", type=click.Path(dir_okay=False), help="Copy the pipeline's log there.")
def main(seconds: float, minutes: float | None, seed: int | None, rate: int, group: bool, hosts: int | None,
         as_json: bool, keep_log: str | None) -> None:
    """Injects random faults into a pipeline, and counts what is lost. Exit code 0: nothing."""
    console = Console(highlight=False, stderr=as_json)
    seconds = minutes * 60 if minutes else seconds
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    console.print(f"Faults for {seconds:g} s, seed {seed}.")
    if hosts:
        sys.exit(_over_hosts(hosts, seconds, seed, rate, console, as_json, keep_log))
    with temporary_folder("pipeline-chaos-") as folder:
        run = ChaosRun(folder, seed, rate, console, group)
        try:
            run.inject_faults(seconds)
            run.settle()
            exit_code = run.pipeline.stop()
            account = run.account()
            failures = run.pipeline.log().count(FAILURE)
        except PipelineError as error:
            console.print(f"FAILED: {error}")
            sys.exit(1)
        finally:
            if keep_log:
                Path(keep_log).write_bytes(run.pipeline.log_file.read_bytes())
            run.close()
    console.print(table_of(run.injected))
    kinds = len({fault.kind for _, fault in run.injected})
    good = account.lost == account.unexpected == failures == 0 and exit_code == 0
    console.print(f"sent {account.sent:,}  stored {account.stored:,}  dead-lettered {account.dead_lettered:,}  "
                  f"lost {account.lost:,}  unexpected {account.unexpected:,}  failures of our own {failures}  "
                  f"exit code {exit_code}")
    if account.missing:
        console.print(f"missing, among others: {account.missing[:SHOWN_MISSING]}")
    console.print("OK: every message is accounted for." if good else
                  f"FAILED: run it again with --seed {seed} --keep-log FILE")
    if as_json:
        click.echo(json.dumps({
            "lost": account.lost, "faults": len(run.injected), "kinds": kinds, "sent": account.sent,
            "stored": account.stored, "dead_lettered": account.dead_lettered, "poisons": account.poisons,
            "unexpected": account.unexpected,
            "own_failures": failures,
            "producer_retries": run.producer.retries, "starts_without_iggy": run.faults.starts,
            "seconds": seconds, "seed": seed, "exit_code": exit_code}))
    sys.exit(0 if good else 1)


def _over_hosts(hosts: int, seconds: float, seed: int, rate: int, console: Console, as_json: bool,
                keep_log: str | None) -> int:
    """Exit code of a run over hosts."""
    try:
        verdict = run_hosts(hosts, seconds, seed, rate, console, keep_log)
    except PipelineError as error:
        console.print(f"FAILED: {error}", markup=False)
        return 1
    console.print(table_of(verdict.injected))
    account = verdict.account
    console.print(f"sent {account.sent:,}  stored {account.stored:,}  dead-lettered {account.dead_lettered:,}  "
                  f"lost {account.lost:,}  unexpected {account.unexpected:,}  failures of our own "
                  f"{verdict.own_failures}  exit codes {verdict.exit_codes}", markup=False)
    console.print(f"longest standstill of a partition {max(verdict.standstills):.1f} s (at most "
                  f"{verdict.standstill_bound:.0f} s are allowed); all was committed {verdict.settled_seconds:.1f} s "
                  f"after the last fault (at most {verdict.settled_bound:.0f} s)")
    if account.missing:
        console.print(f"missing, among others: {account.missing[:SHOWN_MISSING]}", markup=False)
    console.print("OK: every message is accounted for." if verdict.good else
                  f"FAILED: run it again with --hosts {hosts} --seed {seed} --keep-log FILE")
    if as_json:
        click.echo(json.dumps(_hosts_json(verdict, hosts, seconds, seed)))
    return 0 if verdict.good else 1


def _hosts_json(verdict: HostsVerdict, hosts: int, seconds: float, seed: int) -> dict[str, object]:
    account = verdict.account
    return {"lost": account.lost, "hosts": hosts, "faults": len(verdict.injected),
            "kinds": len({fault.kind for _, fault in verdict.injected}), "sent": account.sent,
            "stored": account.stored, "dead_lettered": account.dead_lettered, "unexpected": account.unexpected,
            "own_failures": verdict.own_failures, "exit_codes": verdict.exit_codes,
            "longest_standstill_seconds": max(verdict.standstills), "standstill_seconds": verdict.standstills,
            "standstill_bound_seconds": verdict.standstill_bound, "settled_seconds": verdict.settled_seconds,
            "settled_bound_seconds": verdict.settled_bound, "producer_retries": verdict.producer_retries,
            "starts_without_iggy": verdict.starts_without_iggy, "seconds": seconds, "seed": seed}


def run() -> None:
    """The command."""
    end_on_interrupt()
    run_and_exit(lambda: main(prog_name="scripts/chaos"))


if __name__ == "__main__":
    run()
