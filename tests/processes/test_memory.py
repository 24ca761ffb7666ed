"""With the database down and a backlog in Iggy, memory stays flat, and all is written when it is back."""

from pathlib import Path

import pytest

from pipeline.testbed.bench.memory import measure

#: More than twice the window (400,000), so that the backlog would show.
MESSAGES = 900_000
#: Promised for 2 workers, and the same for a backlog of any size; see docs/reliability.rst.
MAX_MEGABYTES = 400


@pytest.mark.timeout(300)
def test_a_backlog_does_not_grow_the_pipelines_memory(tmp_path: Path) -> None:
    figures = measure(tmp_path, MESSAGES, 2)
    # Full sockets stop the reading before the window does; the last batch may begin within it and end beyond it.
    assert 100_000 <= figures["in_flight_while_down"] < 405_000
    assert figures["peak_pss_mb"] < MAX_MEGABYTES, figures
    assert figures["exit_code"] == 0
