"""With the database down and a backlog in Iggy, memory stays flat, and all is written when it is back."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.testbed.bench.memory import measure

#: So much more than the window (400,000) that the backlog would show.
MESSAGES = 450_000
#: Promised for 2 workers, and the same for a backlog of any size; see docs/explanation/reliability.rst.
MAX_MEGABYTES = 400


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_backlog_does_not_grow_the_pipelines_memory(tmp_path: Path) -> None:
    figures = measure(tmp_path, MESSAGES, 2)
    # Full sockets stop the reading before the window does; the last batch may begin within it and end beyond it.
    assert 100_000 <= figures["in_flight_while_down"] < 405_000
    assert figures["peak_pss_mb"] < MAX_MEGABYTES, figures
    assert figures["exit_code"] == 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_new_devices_without_end_grow_it_no_further_than_the_limit(tmp_path: Path) -> None:
    # What an encoder remembers has a limit of its own: the devices of 50,000 messages are more than three times that.
    figures = measure(tmp_path, 100_000, 2, "adversary", "encoder_cache_bytes = 4_000_000\n")
    assert figures["peak_pss_mb"] < MAX_MEGABYTES, figures
    assert figures["exit_code"] == 0


ONE_FIELD = """
import resource, sys
from pipeline.wire import payload_frame
from pipeline.config.schema import MappingConfig
from stages.mapping.batch import BatchOrigin
from stages.mapping.encoder import Encoder
encoder = Encoder(MappingConfig(tag_fields=("device",), nested="json"), "ns", "s", "t")
payload = sys.argv[1].encode() + {"text": b"x", "escapes": b"\\\\n", "wide": "\U0001f600".encode()}[sys.argv[2]] * int(
    sys.argv[3]) + sys.argv[4].encode()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
origin = BatchOrigin(timestamps=[1])
encoded = encoder.encode_array(payload_frame.joined([payload]), 1, origin) or encoder.encode([payload], origin)
print(encoded.points, len(payload), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize(("filling", "size"), [("text", 1), ("escapes", 2), ("wide", 4)])
@pytest.mark.parametrize(("head", "tail"), [('{"device":"d","f":"', '"}'), ('{"device":"d","f":{"g":"', '"}}')])
def test_one_large_field_costs_a_bounded_number_of_its_copies(filling: str, size: int, head: str, tail: str) -> None:
    run = subprocess.run([sys.executable, "-c", ONE_FIELD, head, filling, str(9_800_000 // size), tail],
                         capture_output=True, text=True, timeout=120)
    points, payload, used = map(int, run.stdout.split())
    assert points == 1
    assert used < 25 * payload
