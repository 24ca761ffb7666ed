"""Runs of `scripts/chaos` with every kind of fault once: the same plan each time, every message accounted for."""

import json
import subprocess
import sys

import pytest


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [(), ("--group",)], ids=["single", "group"])
def test_random_faults_lose_nothing(options: tuple[str, ...]) -> None:
    run = subprocess.run([sys.executable, "-m", "pipeline.testbed.chaos.run", "--seconds", "1", "--seed", "1",
                          "--json", *options], capture_output=True, text=True, timeout=580)
    assert run.returncode == 0, run.stdout + run.stderr
    verdict = json.loads(run.stdout.splitlines()[-1])
    assert verdict["lost"] == verdict["unexpected"] == verdict["exit_code"] == 0
    assert verdict["sent"] == verdict["stored"] + verdict["dead_lettered"]
    assert verdict["sent"] > 1_000
    # 17 kinds are not about its processes: those are found, too.
    assert verdict["kinds"] > 17
