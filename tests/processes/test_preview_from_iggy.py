"""`pipeline preview` and `mapping suggest --from-iggy`: the last messages of a real topic, and nothing committed."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.iggy_servers import RunningIggy, SandboxIggy
from tests.support.sinks import TOPIC, message, send

CONFIG = """
[iggy]
address = "{iggy}"
[[topics]]
stream = "{stream}"
topic = "readings"
[mapping]
tag_fields = ["device"]
timestamp_from = "field"
timestamp_field = "ts"
timestamp_format = "epoch_ns"
[influxdb]
org = "o"
bucket = "b"
"""


def test_the_last_messages_of_each_partition_are_shown(iggy: RunningIggy, stream: str, tmp_path: Path) -> None:
    iggy.create_topic(stream, TOPIC, 2)
    send(iggy.address, stream, [message(n) for n in range(1_000)], 2)
    config = tmp_path / "pipeline.toml"
    config.write_text(CONFIG.format(iggy=iggy.address, stream=stream))
    command = [sys.executable, "-m", "pipeline", "preview", "-c", str(config), "--from-iggy", "--count", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *rows, counts = map(json.loads, done.stdout.splitlines())
    assert {row["message"]: row["lines"] for row in rows} == {
        f"partition {partition} offset {offset}": [
            f"readings,device=d{n % 7} value={n},ok={'true' if n % 2 == 0 else 'false'} {1_000 + n}"]
        for partition, offset, n in [(0, 498, 498), (0, 499, 499), (1, 498, 998), (1, 499, 999)]}
    assert counts["rejected"] == 0
    command = [sys.executable, "-m", "pipeline", "mapping", "suggest", "-c", str(config), "--from-iggy", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    proposed = json.loads(done.stdout)
    assert (proposed["messages"], proposed["lines"], proposed["rejected"]) == (400, 400, {})
    assert proposed["mapping"]["tag_fields"] == ["device"]
    if isinstance(iggy, SandboxIggy):
        assert iggy.broker.state.stored_offset(stream, TOPIC, 0, "pipeline") in (None, -1)
