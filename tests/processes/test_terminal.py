"""On a terminal `pipeline start` shows one live line, and `pipeline top` the whole pipeline; logs are for machines."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.commands.config import load_config
from pipeline.http.client import request
from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TARGETS, TOPIC, SandboxInflux, Sink, configuration, message, send


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, log: Path, *arguments: str) -> None:
        """What it has shown is in the file `log` at the end, where secrets are searched."""
        self._log = log
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self.process = subprocess.Popen(["setsid", "--ctty", sys.executable, "-m", "pipeline", *arguments], stdin=slave,
                                        stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"})
        os.close(slave)
        self.text = ""

    def shows(self, pattern: str) -> bool:
        """Whether it has shown what a regular expression matches."""
        if select.select([self._master], [], [], 0.05)[0]:
            try:
                self.text += os.read(self._master, 1_000_000).decode("utf-8", "replace")
            except OSError:  # everything has ended
                pass
        return re.search(pattern, self.text) is not None

    def key(self, text: str) -> None:
        os.write(self._master, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        self._log.write_text(self.text)


@contextmanager
def on_terminal(log: Path, *arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(log, *arguments)
    try:
        yield terminal
    finally:
        terminal.close()


def test_a_live_line_and_top(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, tmp_path: Path) -> None:
    sandbox.create_topic(stream, TOPIC, 2)
    (tmp_path / "run").mkdir(mode=0o700)
    path = tmp_path / "p.toml"
    path.write_text(configuration(sandbox.address, stream, influxdb.url, TARGETS["v2"], tmp_path / "run"))
    with on_terminal(tmp_path / "start.log", "start", "-c", str(path), "--workers", "2") as terminal:
        wait_until(lambda: terminal.shows(r"\r\x1b\[Kread 0 \(0/s\)"), "the live line")
        assert terminal.shows(r"\r\x1b\[K\d\d:\d\d:\d\d INFO    supervisor: started: 1 ingest, 2 encoders")
        send(sandbox.address, stream, [message(n) for n in range(1_000)], 2)
        wait_until(lambda: terminal.shows(r"\r\x1b\[Kread 1000 \(\d+/s\), written 1000"), "it to follow")
        influxdb.fail({"status": 401})
        send(sandbox.address, stream, [message(n) for n in range(1_000, 1_100)], 2)
        wait_until(lambda: terminal.shows(r"\x1b\[31mERROR  \x1b\[m write-[01]: writing is paused"), "an error above")
        wait_until(lambda: terminal.shows(r"\r\x1b\[KWAITING: "), "it to wait")

        # Without a terminal `top` is shown once; on one, until q.
        shown = subprocess.run([sys.executable, "-m", "pipeline", "top", "-c", str(path)], capture_output=True,
                               text=True, timeout=60, check=True).stdout
        assert shown.startswith("paused") and re.search(r"encode-1 +\d+ .*runs", shown) and "answered 401" in shown
        assert re.search(rf"{stream}/{TOPIC} +0 +\d+ +\d+ +\d+ ", shown)
        with on_terminal(tmp_path / "top.log", "top", "-c", str(path), "--interval", "0.2") as other:
            wait_until(lambda: other.shows(r"coordinator.*runs"), "top")
            other.key("q")
            wait_until(lambda: other.shows("$") and other.process.poll() == 0, "its end")
        influxdb.fail()
        wait_until(lambda: terminal.shows(r"written 1100"), "the rest")

        # Samples of what passes, as long as somebody wants them.
        tap = [sys.executable, "-m", "pipeline", "tap", "-c", str(path)]
        with (subprocess.Popen([*tap, "--json", "--count", "8"], stdout=subprocess.PIPE, text=True) as taken,
              subprocess.Popen([*tap, "--only", "rejects", "--count", "1"], stdout=subprocess.PIPE, text=True) as bad):
            sent = 1_100
            while taken.poll() is None or bad.poll() is None:
                send(sandbox.address, stream, [*(message(n) for n in range(sent, sent + 10)), b"no json"], 2)
                sent += 10
                time.sleep(0.1)
            assert taken.stdout is not None and bad.stdout is not None
            check_samples([json.loads(line) for line in taken.stdout], stream)
            assert re.match(rf"# rejected {stream}/{TOPIC} partition 0 offset \d+: not_json: ", bad.stdout.read())
        assert taken.returncode == bad.returncode == 0
        terminal.key("\x03")
        wait_until(lambda: terminal.shows(r"\r\x1b\[K\d\d:\d\d:\d\d INFO    supervisor: stopped: \d{4} messages read"),
                   "its end")
        wait_until(lambda: terminal.process.poll() == 0, "its exit code")


def check_samples(samples: list[dict[str, Any]], stream: str) -> None:
    assert len(samples) == 8
    for one in samples:
        assert (one["stream"], one["topic"], one["partition"]) == (stream, TOPIC, 0)
        if one["kind"] == "line":
            assert one["line"].startswith(f"{TOPIC},device=d") and int(one["line"].rpartition(" ")[2]) >= 2_100
    assert any(one["kind"] == "line" for one in samples)


def pids(sink: Sink) -> dict[str, int]:
    found: list[dict[str, Any]] = request(load_config(str(sink.config)), "GET", "/status")["processes"]
    return {one["name"]: one["pid"] for one in found}


def records(sink: Sink) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sink.log().splitlines()]


def test_logs_for_machines_and_levels_that_change(sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux,
                                                  start_sink: Callable[..., Sink]) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    sink = start_sink(sandbox.address, stream, influxdb, options='log_format = "json"')
    send(sandbox.address, stream, [*(message(n) for n in range(100)), b"no json"])
    sink.settles(101)
    influxdb.fail({"status": 401})
    send(sandbox.address, stream, [message(n) for n in range(100, 200)])
    sink.wait_for(lambda status: status.paused)
    wait_until(lambda: any(one.get("status") == 401 for one in records(sink)), "the failure in the log")
    failure = next(one for one in records(sink) if one.get("status") == 401)
    assert failure["level"] == "error" and failure["process"].startswith("write-") and failure["pid"] > 1
    assert failure["url"].startswith(influxdb.url) and "401" in failure["message"]
    influxdb.fail()
    sink.settles(201)

    # Another level of one stage, and another format, in all processes that run.
    text = sink.config.read_text()
    assert 'log_format = "json"' in text
    changed = 'log_format = "text"\nlog_levels = { write = "error" }'
    sink.config.write_text(text.replace('log_format = "json"', changed))
    before = pids(sink)
    sink.process.send_signal(signal.SIGHUP)
    done = "INFO    supervisor: reload: changed: pipeline.log_levels.write, pipeline.log_format"
    wait_until(lambda: done in sink.log(), "the reload")
    assert pids(sink) == before
    assert sink.stop() == 0
    first, *_ = [one for one in records_before_text(sink.log()) if one.get("reason") == "not_json"]
    assert (first["stream"], first["topic"], first["partition"], first["offset"]) == (stream, TOPIC, 0, 100)
    assert time.strptime(first["time"][:19], "%Y-%m-%dT%H:%M:%S")


def records_before_text(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]
