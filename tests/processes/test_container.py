"""The image, built and run by a container engine: CONTAINER_ENGINE names it (podman, docker); else they are left out.

The engine needs the base, python:3.13-slim: `scripts/base-image` makes a stand-in where no registry can be reached.
"""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TARGETS, TOPIC, SandboxInflux, configuration, message, numbers, send

ENGINE = os.environ.get("CONTAINER_ENGINE", "")
pytestmark = pytest.mark.skipif(not ENGINE, reason="there is no container engine: name one in CONTAINER_ENGINE")
ROOT = Path(__file__).parents[2]
IMAGE = f"iggy-influxdb-pipeline:test-{uuid.uuid4().hex[:8]}"
CONFIG = "/etc/pipeline/pipeline.toml"
#: As `docker run` in docs/how-to/containers.rst has it.
CLOSED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network",
          "host", "--memory", "512m", "--stop-timeout", "45")


def engine(*arguments: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
    """Runs the engine."""
    return subprocess.run([ENGINE, *arguments], capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image."""
    # Podman leaves HEALTHCHECK out of images in its own format.
    own = ["--format", "docker"] if Path(ENGINE).name == "podman" else []
    built = engine("build", *own, "--network", "host", "-f", str(ROOT / "deploy/container/Dockerfile"), "-t", IMAGE,
                   str(ROOT), timeout=280)
    assert built.returncode == 0, built.stdout + built.stderr
    yield IMAGE
    engine("image", "rm", "--force", IMAGE)


def test_the_image_is_small_and_runs_as_nobody(image: str) -> None:
    [found] = json.loads(engine("image", "inspect", image).stdout)
    assert found["Size"] < 200_000_000
    assert found["Config"]["User"] == "65532:65532"
    assert found["Config"]["Entrypoint"] == ["pipeline"]
    run = engine("run", "--rm", *CLOSED, "--entrypoint", "python3", image, "-c",
                 "import os; print(os.getuid(), [x for x in os.listdir('/opt/pipeline/bin') if x.startswith('pip')])")
    assert run.stdout.split(maxsplit=1) == ["65532", "['pipeline']\n"], run.stderr


def test_a_container_is_healthy_writes_to_its_state_only_and_drains_when_it_is_stopped(
        image: str, tmp_path: Path, sandbox: SandboxIggy, influxdb: SandboxInflux) -> None:
    sandbox.create_topic("s", TOPIC, 1)
    send(sandbox.address, "s", [message(number) for number in range(1_000)])
    (tmp_path / "influx-token").write_text("sandbox-token")
    target = TARGETS["v2"].replace('token = "sandbox-token"', 'token_file = "/run/secrets/influx-token"')
    assert "token_file" in target
    (tmp_path / "pipeline.toml").write_text(
        configuration(sandbox.address, "s", influxdb.url, target, Path("/tmp/run")))
    name = f"pipeline-test-{uuid.uuid4().hex[:8]}"
    mounts = {"influx-token": "/run/secrets/influx-token", "pipeline.toml": CONFIG}
    volumes = [part for file, at in mounts.items() for part in ("-v", f"{tmp_path / file}:{at}:ro")]
    started = engine("run", "-d", "--name", name, *CLOSED, *volumes, image)
    try:
        assert started.returncode == 0, started.stderr
        wait_until(lambda: influxdb.count() == 1_000 or not details(name)["State"]["Running"], "the first points")
        assert influxdb.count() == 1_000, log_of(name)
        check = ["pipeline", "status", "-c", CONFIG]
        assert details(name)["Config"]["Healthcheck"]["Test"][1:] == check
        healthy = engine("exec", name, *check)
        assert healthy.returncode == 0, healthy.stderr
        written = engine("exec", name, "sh", "-c",
                         "touch /var/lib/pipeline/mine && ! touch /mine && ! touch /opt/pipeline/mine")
        assert written.returncode == 0, written.stderr
        influxdb.fail({"status": 503})
        send(sandbox.address, "s", [message(number) for number in range(1_000, 2_000)])
        wait_until(lambda: "503" in influxdb.stats()["statuses"], "messages in flight")
        stopping = subprocess.Popen([ENGINE, "stop", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: "stopping: finishing what is in flight" in log_of(name), "the drain")
        influxdb.fail()
        assert stopping.wait(60) == 0
        state = details(name)["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
        assert "2000 points written, 0 rejected, every offset committed" in log_of(name)
        assert numbers(influxdb.points()) == list(range(2_000))
        assert "sandbox-token" not in log_of(name) + json.dumps(details(name))
    finally:
        engine("rm", "--force", name)


def details(container: str) -> dict[str, Any]:
    """What the engine knows of a container."""
    [found] = json.loads(engine("container", "inspect", container).stdout)
    return dict(found)


def log_of(container: str) -> str:
    """The log of a container."""
    run = engine("logs", container)
    return run.stdout + run.stderr
