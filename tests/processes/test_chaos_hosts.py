"""Pipelines of one group on three hosts, whose links fail: every message is accounted for, and nothing stays behind.

Hosts are network namespaces, which only root can make; where they can't be made, these tests are left out.
"""

import json
import os
import signal
import subprocess
import sys

import pytest

from pipeline.testbed.harness.waiting import wait_until
from pipeline.testbed.hosts import namespaces

REASON = namespaces.why_impossible()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"network namespaces can't be made here: {REASON}")
COMMAND = [sys.executable, "-m", "pipeline.testbed.chaos.run", "--hosts"]


def left(pid: int) -> list[str]:
    """The namespaces that process `pid` has made."""
    names = os.listdir(namespaces.FOLDER) if namespaces.FOLDER.exists() else []
    return [name for name in names if name.startswith(namespaces.namespace(pid, ""))]


@pytest.mark.long
def test_three_hosts_lose_nothing_while_their_links_fail() -> None:
    run = subprocess.Popen([*COMMAND, "3", "--seconds", "4", "--seed", "4", "--json"], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)
    out, err = run.communicate(timeout=280)
    assert run.returncode == 0, out + err
    verdict = json.loads(out.splitlines()[-1])
    assert verdict["lost"] == verdict["unexpected"] == verdict["own_failures"] == 0
    assert verdict["exit_codes"] == [0, 0, 0]
    assert verdict["sent"] == verdict["stored"] + verdict["dead_lettered"]
    assert verdict["sent"] > 1_000
    assert verdict["longest_standstill_seconds"] <= verdict["standstill_bound_seconds"]
    assert not left(run.pid)


def test_hosts_are_removed_when_the_run_is_killed() -> None:
    with subprocess.Popen([*COMMAND, "1", "--seconds", "600", "--seed", "1"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as run:
        wait_until(lambda: len(left(run.pid)) == 6, "the hosts")
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not left(run.pid), "the end of the hosts")
