"""A rolling update, as a StatefulSet does it: an old pipeline drains, then a new one of its name takes over.

Two pipelines of one group; messages come all the while. Nothing is lost, and nothing is written twice.
"""

import re
from collections.abc import Callable
from functools import partial

from pipeline.commands.config import load_config
from pipeline.errors import PipelineError
from pipeline.http.client import request
from pipeline.testbed.harness.waiting import wait_until
from tests.processes.test_groups import GROUP, all_committed, shares
from tests.support.iggy_servers import SandboxIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, send

Start = Callable[..., Sink]
#: What a pipeline says last, with what it has read and written.
SUMMARY = re.compile(r"stopped: (\d+) messages read, (\d+) points written")


def is_stopping(sink: Sink) -> bool:
    """Whether it is not ready because it is stopping, as /readyz says, too."""
    try:
        reasons = request(load_config(str(sink.config)), "GET", "/status")["readiness"]["reasons"]
    except PipelineError:
        return False
    return "it is stopping" in [reason["reason"] for reason in reasons]


def test_the_old_pipeline_drains_before_the_new_one_takes_over_and_nothing_is_written_twice(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    sandbox.create_topic(stream, TOPIC, 4)
    pods = [start_sink(sandbox.address, stream, influxdb, iggy_options=GROUP) for _ in range(2)]
    wait_until(lambda: sorted(map(len, shares(sandbox, stream))) == [2, 2], "two shares")
    sent = 0
    for turn, pod in enumerate(reversed(pods), 1):
        influxdb.fail({"status": 503})
        send(sandbox.address, stream, [message(n) for n in range(sent, sent + 2_000)], 4)
        sent += 2_000
        # Statuses of the last turn may still be queued: what was read by now tells them apart.
        read = 1_000 * turn
        pod.wait_for(lambda status: status.in_flight >= 1_000 and status.read >= read)  # noqa: B023
        pod.process.terminate()
        # It is not ready any more, it drains, and it has not ended: Kubernetes starts no other pod of its name.
        wait_until(partial(is_stopping, pod), "the pod to be unready")
        assert pod.process.poll() is None
        influxdb.fail()
        assert pod.ends() == 0
        assert "every offset committed" in pod.log()
        pod.start()
        pod.wait_for(lambda status: status.ready)
        wait_until(lambda: sorted(map(len, shares(sandbox, stream))) == [2, 2], "two shares again")
    send(sandbox.address, stream, [message(n) for n in range(sent, sent + 1_000)], 4)
    all_committed(sandbox, stream, influxdb, range(sent + 1_000))
    for pod in pods:
        assert pod.stop() == 0
    lives = SUMMARY.findall("".join(pod.log() for pod in pods))
    assert len(lives) == 4
    for counts in zip(*lives, strict=True):
        assert sum(map(int, counts)) == sent + 1_000
