"""Messages that once stopped, stalled or swelled a pipeline: each is one dead letter, and all else is written."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.testbed.harness.procfs import cpu_seconds
from pipeline.wire import sink as wire
from tests.support.iggy_servers import RunningIggy
from tests.support.killer import pid_of
from tests.support.poison import good, poisons, protobuf_descriptor
from tests.support.sinks import PATHS, TOPIC, SandboxInflux, Sink, read_topic, send

Start = Callable[..., Sink]
GOOD = 10_000
#: Peak resident memory of an encoder, and the CPU time of both: about 2 s go into the good messages.
MOST_KIBIBYTES = 400 * 1024
MOST_CPU_SECONDS = 30.0
#: Messages of a batch that takes an encoder more than three seconds.
LONG_BATCH = 15
MAPPINGS = {
    "json": 'explode = "e"\narrays = "index"',
    "ndjson": 'format = "ndjson"\nexplode = "e"',
    "msgpack": 'format = "msgpack"',
    "line_protocol": 'format = "line_protocol"',
    "csv": 'format = "csv"',
    "text": 'format = "text"',
    "avro": 'format = "avro"\nexclude_fields = ["note"]',
    "protobuf": 'format = "protobuf"\nprotobuf_descriptor = "DESCRIPTOR"\nprotobuf_message = "Reading"\n'
                'exclude_fields = ["list"]',
}


def peak(pid: int) -> int:
    """Peak resident memory of a process, KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("form", MAPPINGS)
def test_each_poison_among_good_messages_is_one_dead_letter(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start, tmp_path: Path, form: str) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    iggy.create_topic(stream, "influxdb-dlq", 1)
    descriptor = tmp_path / "reading.desc"
    descriptor.write_bytes(protobuf_descriptor())
    bad = poisons(form)
    payloads: list[bytes] = []
    offsets: dict[int, str] = {}
    for number in range(GOOD):
        payloads.append(good(form, number))
        place, rest = divmod(number - 137, GOOD // (len(bad) + 1))
        if rest == 0 and 0 <= place < len(bad):
            name = list(bad)[place]
            offsets[len(payloads)] = name
            payloads.append(bad[name])
    for first in range(0, len(payloads), 200):
        send(iggy.address, stream, payloads[first:first + 200])
    paths = "" if form in ("text", "line_protocol") else PATHS
    sink = start_sink(iggy.address, stream, influxdb, mapping=MAPPINGS[form].replace("DESCRIPTOR", str(descriptor)),
                      paths=paths, options="max_restarts = 0")
    encoders: set[int] = set()

    def done(status: wire.Status) -> bool:
        encoders.update(filter(None, (pid_of(sink, f"encode-{index}") for index in range(2))))
        return sum(p.committed + 1 for p in status.partitions) >= len(payloads) and status.in_flight == 0

    sink.wait_for(done, seconds=240)
    letters = [json.loads(record) for record in read_topic(iggy.address, stream, "influxdb-dlq")]
    assert {one["offset"]: one["reason"] for one in letters}.keys() == offsets.keys(), {
        offsets.get(one["offset"], one["offset"]): one["reason"] for one in letters}
    assert Counter(one["offset"] for one in letters).most_common(1)[0][1] == 1
    assert "internal_error" not in {one["reason"] for one in letters}
    assert influxdb.count() == GOOD
    assert len(encoders) == 2, "an encoder died"
    assert max(map(peak, encoders)) < MOST_KIBIBYTES
    assert sum(map(cpu_seconds, encoders)) < MOST_CPU_SECONDS
    assert sink.stop() == 0


def test_an_encoder_that_works_on_a_batch_for_long_is_not_taken_for_hung(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Start) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    iggy.create_topic(stream, "influxdb-dlq", 1)
    elements = b",".join([b'{"v":1,"w":{"x":2}}'] * 20_000)
    send(iggy.address, stream, [b'{"device":"d","e":[%b],"ts":%d}' % (elements, number)
                                for number in range(LONG_BATCH)])
    sink = start_sink(iggy.address, stream, influxdb, mapping='explode = "e"',
                      options="max_batch_bytes = 40_000_000\nheartbeat_timeout_ms = 3_000\nmax_restarts = 0\n"
                              "redelivery_timeout_ms = 600_000")
    sink.settles(LONG_BATCH, 280)
    assert influxdb.count() == LONG_BATCH
    assert sink.stop() == 0
