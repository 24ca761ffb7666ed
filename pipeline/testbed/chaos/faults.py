"""What `scripts/chaos` does to a running pipeline and to the servers around it, and how each fault is undone."""

import contextlib
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import zmq
from msgspec import Struct

from pipeline.errors import PipelineError
from pipeline.testbed.harness.runs import SinkRun
from pipeline.testbed.harness.waiting import wait_until

#: Longest wait for a sandbox that listens again, seconds.
CONTROL_SECONDS = 15.0
#: The last line of a start that finds no Iggy. A running pipeline waits for Iggy instead.
AWAY = "pipeline: error: Iggy at"
#: How long garbage may wait for a socket that takes none, milliseconds.
GARBAGE_MILLISECONDS = 100
#: Kinds of processes, by the beginning of their names.
STAGES = ("ingest", "encode", "write", "coordinator", "dead-letter")


class Sandbox:
    """Controls the sandbox servers. Waits while an injected fault makes them refuse connections."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request; its answer, decoded. Raises PipelineError when the sandbox refuses the command."""
        answers: list[requests.Response] = []

        def answered() -> bool:
            try:
                answers.append(self._session.request(method, self._url + path, json=body, timeout=CONTROL_SECONDS))
            except (requests.ConnectionError, requests.Timeout):
                return False
            return True

        wait_until(answered, "the sandbox", CONTROL_SECONDS)
        if not answers[0].ok:
            raise PipelineError(f"the sandbox refuses {body}: {answers[0].text}")
        return answers[0].json() if answers[0].content else None

    def iggy(self, do: str, **fields: object) -> Any:
        """A command for the broker; its state after it."""
        return self.call("POST", "/sandbox/iggy", {"do": do, **fields})

    def influxdb(self, *rules: dict[str, object]) -> None:
        """InfluxDB fails by these rules; without one it works."""
        self.call("PUT", "/sandbox/faults", list(rules))


class Injected(Struct, frozen=True):
    """A fault that was injected."""

    kind: str
    detail: str
    #: How long until `undo`, seconds; and what ends it.
    seconds: float
    undo: Callable[[], object] | None = None


class Faults:
    """All kinds of faults. Each method of `kinds` injects one, or returns None when it can't at the moment."""

    def __init__(self, run: SinkRun, sandbox: Sandbox, rng: random.Random,
                 add_poisons: Callable[[int], None]) -> None:
        """`rng` decides everything, so that a seed gives the same plan again; `add_poisons` sends so many."""
        self._add_poisons = add_poisons
        self._run = run
        self._sandbox = sandbox
        self._rng = rng
        #: Stopped processes: they must go on before the verdict.
        self.stopped: set[int] = set()
        #: How often the pipeline was started again because Iggy was away when it started.
        self.starts = 0

    def kinds(self) -> dict[str, Callable[[], Injected | None]]:
        """name -> injects it."""
        kills = {f"kill -9 {kind}": self._signaller(kind, signal.SIGKILL) for kind in STAGES}
        stops = {f"stop {kind}": self._signaller(kind, signal.SIGSTOP) for kind in STAGES}
        return {**kills, **stops, "poison messages": self._poison,
                "kill -9 supervisor": self._kill_supervisor, "stop supervisor": self._stop_supervisor,
                "Iggy restarts": self._iggy_restarts, "Iggy resets connections": self._iggy_resets,
                "Iggy hangs": self._iggy_hangs, "Iggy is slow": self._iggy_is_slow,
                "Iggy cuts replies": self._iggy_cuts, "network cut": self._network_cut,
                "InfluxDB answers errors": self._influxdb_errors, "InfluxDB hangs": self._influxdb_hangs,
                "InfluxDB resets": self._influxdb_resets, "InfluxDB is slow": self._influxdb_is_slow,
                "InfluxDB is down": self._influxdb_is_down, "InfluxDB refuses the token": self._influxdb_token,
                "endless answers": self._influxdb_endless, "frames of garbage": self._garbage}

    def watch(self, seconds: float) -> None:
        """Waits at most so long for a newer Status. Raises PipelineError when the pipeline has ended.

        But one that was killed, and finds no Iggy when it starts again, ends as it should: it is started once more, as
        a service manager would.
        """
        try:
            self._run.watch(seconds)
        except PipelineError:
            lines = self._run.log().splitlines()
            if self._run.process.returncode != 1 or not lines[-1].startswith(AWAY):
                raise
            self.starts += 1
            self._run.start()

    def _seconds(self, least: float, most: float) -> float:
        return round(self._rng.uniform(least, most), 2)

    # Processes

    def _signaller(self, kind: str, number: signal.Signals) -> Callable[[], Injected | None]:
        return lambda: self._signal(kind, number)

    def _signal(self, kind: str, number: signal.Signals) -> Injected | None:
        seconds = self._seconds(0.5, 8.0)
        pick = self._rng.random()
        self.watch(0)
        pids = {name: pid for name, pid in sorted(self._run.pids().items())
                if name.startswith(kind) and self._is_ours(pid)}
        if not pids:
            return None
        name = list(pids)[int(pick * len(pids))]
        os.kill(pids[name], number)
        if number == signal.SIGKILL:
            return Injected(f"kill -9 {kind}", name, 0.0)
        self.stopped.add(pids[name])
        return Injected(f"stop {kind}", f"{name} for {seconds} s", seconds, lambda: self._go_on(pids[name]))

    def _go_on(self, pid: int) -> None:
        """Has a stopped process go on, unless it was killed meanwhile."""
        self.stopped.discard(pid)
        if pid == self._run.process.pid or self._is_ours(pid):
            os.kill(pid, signal.SIGCONT)

    def _is_ours(self, pid: int) -> bool:
        """Whether a process was forked from the fork server of our pipeline: only those are ever signalled."""
        return _parent(_parent(pid)) == self._run.process.pid

    def _kill_supervisor(self) -> Injected:
        self._run.process.kill()
        self._run.process.wait()
        self._run.start()
        return Injected("kill -9 supervisor", "the whole pipeline; started again", 0.0)

    def _stop_supervisor(self) -> Injected:
        seconds, pid = self._seconds(0.5, 4.0), self._run.process.pid
        os.kill(pid, signal.SIGSTOP)
        return Injected("stop supervisor", f"for {seconds} s", seconds, lambda: self._go_on(pid))

    # Neighbours

    def _garbage(self) -> Injected | None:
        """Random bytes, as frames, to the coordinator and the writers, from a peer that nobody knows."""
        sockets = [path for path in sorted((self._run.folder / "run").glob("*.ipc"))
                   if path.name == "control.ipc" or path.name.startswith("write-")]
        with zmq.Context() as context:
            for path in sockets:
                with context.socket(zmq.DEALER if path.name == "control.ipc" else zmq.PUSH) as socket:
                    socket.setsockopt(zmq.LINGER, GARBAGE_MILLISECONDS)
                    socket.setsockopt(zmq.SNDTIMEO, GARBAGE_MILLISECONDS)
                    socket.connect(f"ipc://{path}")
                    for _ in range(self._rng.randint(1, 5)):
                        frames = [self._rng.randbytes(self._rng.randint(0, 3_000))
                                  for _ in range(self._rng.randint(1, 4))]
                        with contextlib.suppress(zmq.Again):
                            socket.send_multipart(frames)
        return Injected("frames of garbage", f"to {len(sockets)} sockets", 0.0) if sockets else None

    # Messages

    def _poison(self) -> Injected:
        count = self._rng.randint(1, 12)
        self._add_poisons(count)
        return Injected("poison messages", str(count), 0.0)

    # Iggy

    def _iggy_restarts(self) -> Injected:
        seconds = self._seconds(0.1, 2.0)
        self._sandbox.iggy("restart", seconds=seconds)
        return Injected("Iggy restarts", f"down for {seconds} s", 0.0)

    def _iggy_resets(self) -> Injected:
        self._sandbox.iggy("drop_connections")
        return Injected("Iggy resets connections", "all", 0.0)

    def _iggy_hangs(self) -> Injected:
        seconds = self._seconds(0.5, 4.0)
        self._sandbox.iggy("hang")
        return Injected("Iggy hangs", f"for {seconds} s", seconds, lambda: self._sandbox.iggy("resume"))

    def _iggy_is_slow(self) -> Injected:
        seconds, delay = self._seconds(1.0, 4.0), self._seconds(0.02, 0.3)
        self._sandbox.iggy("delay_answers", seconds=delay)
        return Injected("Iggy is slow", f"{delay} s for each answer, for {seconds} s", seconds,
                        lambda: self._sandbox.iggy("delay_answers", seconds=0))

    def _iggy_cuts(self) -> Injected:
        count = self._rng.randint(1, 4)
        self._sandbox.iggy("cut_polls", count=count)
        return Injected("Iggy cuts replies", f"{count} polls in the middle", 0.0)

    def _network_cut(self) -> Injected:
        seconds = self._seconds(0.5, 3.0)
        self._sandbox.iggy("refuse_connections")
        self._sandbox.iggy("drop_connections")
        self._sandbox.influxdb({"refuse": seconds})
        return Injected("network cut", f"both servers, for {seconds} s", seconds,
                        lambda: self._sandbox.iggy("refuse_connections", refuse=False))

    # InfluxDB: the rules are spent, or taken back

    def _influxdb(self, kind: str, detail: str, seconds: float, *rules: dict[str, object]) -> Injected:
        self._sandbox.influxdb(*rules)
        return Injected(kind, detail, seconds, self._sandbox.influxdb)

    def _influxdb_errors(self) -> Injected:
        status, times = self._rng.choice([429, 500, 503]), self._rng.randint(1, 20)
        rule: dict[str, object] = {"status": status, "times": times}
        if status == 429:
            rule["headers"] = {"Retry-After": "1"}
        return self._influxdb("InfluxDB answers errors", f"{status}, {times} times", self._seconds(1.0, 4.0), rule)

    def _influxdb_hangs(self) -> Injected:
        times = self._rng.randint(1, 4)
        return self._influxdb("InfluxDB hangs", f"{times} requests", self._seconds(1.0, 3.0),
                              {"hang": True, "times": times})

    def _influxdb_resets(self) -> Injected:
        when, times = self._rng.choice(["before", "middle", "after"]), self._rng.randint(1, 6)
        return self._influxdb("InfluxDB resets", f"{times} requests, {when} the body is stored",
                              self._seconds(1.0, 3.0), {"reset": when, "times": times})

    def _influxdb_is_slow(self) -> Injected:
        delay, seconds = self._seconds(0.1, 1.0), self._seconds(1.0, 4.0)
        return self._influxdb("InfluxDB is slow", f"{delay} s for each answer, for {seconds} s", seconds,
                              {"delay_seconds": delay})

    def _influxdb_is_down(self) -> Injected:
        seconds = self._seconds(0.5, 4.0)
        return self._influxdb("InfluxDB is down", f"for {seconds} s", seconds, {"refuse": seconds})

    def _influxdb_endless(self) -> Injected:
        times = self._rng.randint(1, 6)
        return self._influxdb("endless answers", f"{times} requests", self._seconds(1.0, 3.0),
                              {"endless": True, "times": times})

    def _influxdb_token(self) -> Injected:
        seconds = self._seconds(0.5, 2.0)
        return self._influxdb("InfluxDB refuses the token", f"for {seconds} s", seconds, {"token": "another"})

    def undo_all(self) -> None:
        """Everything works again, whatever was injected."""
        for pid in [*self.stopped, self._run.process.pid]:
            self._go_on(pid)
        self._sandbox.iggy("resume")
        self._sandbox.iggy("delay_answers", seconds=0)
        self._sandbox.iggy("refuse_connections", refuse=False)
        self._sandbox.influxdb()


def _parent(pid: int) -> int:
    """The parent of a process, 0 when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
