"""`scripts/chaos --hosts N`: faults between hosts, and the account of every message at the end."""

import os
import random
import time
from pathlib import Path

from msgspec import Struct
from rich.console import Console

from pipeline.config.schema import Subscription
from pipeline.errors import PipelineError
from pipeline.interrupts import temporary_folder
from pipeline.testbed.chaos.account import FAILURE, Account, account_of
from pipeline.testbed.chaos.faults import Injected, Sandbox
from pipeline.testbed.chaos.host_faults import MOST_SECONDS, HostFaults, Schedule
from pipeline.testbed.chaos.hosts import ENCODER, GROUP, IGGY, INFLUXDB, PRODUCER, Hosts
from pipeline.testbed.chaos.producer import Producer
from pipeline.testbed.chaos.progress import Progress
from pipeline.testbed.harness import telemetry
from pipeline.testbed.hosts.network import Network
from pipeline.testbed.sandbox.iggy.server import STALE_INTERVALS
from pipeline.testbed.sandbox.iggy.state import REBALANCING_TIMEOUT_SECONDS

PARTITIONS = 12
#: Pause between two faults, seconds.
PAUSES = (1.0, 4.0)
#: Longest wait for the last message, once everything works again, seconds.
SETTLE_SECONDS = 240.0
#: A busy machine needs at most so long to start what was killed, seconds.
START_SECONDS = 30.0
#: A partition may stand still through so many faults in a row.
FAULTS_IN_A_ROW = 3


class HostsVerdict(Struct, frozen=True, kw_only=True):
    """What became of a run."""

    account: Account
    injected: list[tuple[float, Injected]]
    exit_codes: list[int]
    own_failures: int
    starts_without_iggy: int
    producer_retries: int
    #: The longest standstill of each partition, seconds.
    standstills: list[float]
    #: From the end of the last fault until every message was committed, seconds.
    settled_seconds: float
    #: Iggy's heartbeat interval, seconds.
    heartbeat_seconds: float

    @property
    def standstill_bound(self) -> float:
        """No partition may have stood still for longer, seconds."""
        return FAULTS_IN_A_ROW * MOST_SECONDS + self.settled_bound

    @property
    def settled_bound(self) -> float:
        """All messages have to be committed within so many seconds after the last fault.

        Until then Iggy notices that a member is gone, once an interval, and waits for what it has not committed.
        """
        return (STALE_INTERVALS + 1) * self.heartbeat_seconds + REBALANCING_TIMEOUT_SECONDS + START_SECONDS

    @property
    def good(self) -> bool:
        """Whether nothing was lost, nothing failed by itself, and no partition stood still for too long."""
        return (self.account.lost == self.account.unexpected == self.own_failures == 0 and not any(self.exit_codes)
                and max(self.standstills) <= self.standstill_bound and self.settled_seconds <= self.settled_bound)


def run_hosts(pipelines: int, seconds: float, seed: int, rate: int, console: Console, keep_log: str | None
              ) -> HostsVerdict:
    """Runs it. Raises PipelineError where hosts can't be made, and when a pipeline ends by itself.

    The environment variable IGGY names the binary of a real Iggy server; without it, the sandbox's runs.
    """
    names = [IGGY, INFLUXDB, PRODUCER, ENCODER, *(f"pipeline-{number}" for number in range(1, pipelines + 1))]
    with temporary_folder("pipeline-hosts-") as folder, Network(names, seed) as network:
        network.enter(PRODUCER)
        hosts = Hosts(folder, network, PARTITIONS, os.environ.get("IGGY", ""))
        try:
            return _HostsRun(hosts, seed, rate, console).run(seconds)
        finally:
            if keep_log:
                logs = [f"== {one.host}\n{one.run.log()}" for one in hosts.pipelines if one.run.log_file.exists()]
                Path(keep_log).write_text("\n".join([*logs, f"== {ENCODER}\n{hosts.encoder.log()}"]))


class _HostsRun:
    def __init__(self, hosts: Hosts, seed: int, rate: int, console: Console) -> None:
        self._hosts = hosts
        self._rng = random.Random(seed)
        self._console = console
        self._producer = Producer(hosts.iggy, PARTITIONS, rate, random.Random(seed))
        topic = Subscription(sink=0, stream=telemetry.STREAM, topic=telemetry.TOPIC, start_from="first",
                             consumer=GROUP, group=True)
        self._progress = Progress(hosts.iggy, topic, PARTITIONS)

    def run(self, seconds: float) -> HostsVerdict:
        self._hosts.start()
        self._producer.start()
        self._progress.start()
        injected = self._inject_faults(seconds)
        settled_seconds = self._settle()
        self._progress.stop(10.0)
        standstills = [round(value, 1) for value in self._progress.longest()]
        exit_codes = self._hosts.stop()
        account = account_of(self._producer, Sandbox(self._hosts.influxdb), self._hosts.iggy)
        return HostsVerdict(
            account=account, injected=injected, exit_codes=exit_codes, standstills=standstills,
            settled_seconds=round(settled_seconds, 1), heartbeat_seconds=self._hosts.heartbeat_seconds,
            own_failures=sum(one.run.log().count(FAILURE) for one in self._hosts.pipelines),
            starts_without_iggy=sum(one.starts_without_iggy for one in self._hosts.pipelines),
            producer_retries=self._producer.retries)

    def _inject_faults(self, seconds: float) -> list[tuple[float, Injected]]:
        faults = HostFaults(self._hosts, self._rng)
        schedule = Schedule(faults.kinds(), self._rng, PAUSES)
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            fault = schedule.tick()
            if fault is not None:
                self._console.print(f"{now - began:6.1f} s  {fault.kind}: {fault.detail}")
            self._hosts.watch()
            time.sleep(0.05)
        schedule.undo_all()
        faults.undo_all()
        return schedule.injected

    def _settle(self) -> float:
        """Waits until all that was sent is committed, and returns after how many seconds it was. Raises PipelineError
        when that doesn't happen."""
        began = time.monotonic()
        if not self._producer.stop(60):
            raise PipelineError("the producer can't get rid of its last batch")
        looks = self._progress.looks + 1
        while self._progress.lag != 0 or self._progress.looks <= looks:
            if time.monotonic() > began + SETTLE_SECONDS:
                raise PipelineError(f"timed out after {SETTLE_SECONDS:g} s waiting for the last {self._progress.lag} "
                                    f"messages; {self._progress.described()}; "
                                    f"{self._hosts.pipelines[0].run.log_end()}")
            self._hosts.watch()
            time.sleep(0.1)
        return time.monotonic() - began
