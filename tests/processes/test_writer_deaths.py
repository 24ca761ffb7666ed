"""A writer that is killed while it has a batch in hand: the batch is read again in parts, and no message is lost."""

import json
import socket
import threading
from collections.abc import Callable
from functools import partial

from pipeline.compression import decompress
from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import RunningIggy
from tests.support.killer import Killer
from tests.support.raw_servers import answer, raw_server, read_request
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, read_topic, send

COUNT = 1_000
#: Messages that the database refuses: their field is a number in all others.
BAD = (77, 277, 477, 677, 877)
#: Text that takes the writer some milliseconds to split into lines, each time: 10 MB in all messages together.
NOTE = "x" * 10_000 + "\n"
#: A refusal that does not identify a line.
POISON = answer("400 Bad Request", b'{"code":"invalid","message":"the moon is in the wrong quarter"}',
                "Content-Type: application/json")
ONE_BATCH = f"batch_size = {COUNT}\nflush_interval_ms = 1_000\nmax_batch_bytes = 50_000_000\nwindow_bytes = 200_000_000"


class Poisoner:
    """Stands before a database. Refuses requests with a bad line while `poisons` is set; passes everything else on."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.poisons = threading.Event()
        self.poisons.set()
        self.asked = threading.Event()
        self.may_answer = threading.Event()

    def __call__(self, connection: socket.socket, number: int) -> None:
        while request := read_request(connection):
            head, _, body = request.partition(b"\r\n\r\n")
            lines = decompress(body) if head.startswith(b"POST") else b""
            is_bad = b'value="text"' in lines
            if is_bad:
                self.asked.set()
                self.may_answer.wait(60)
            if is_bad and self.poisons.is_set():
                connection.sendall(POISON)
                continue
            with socket.create_connection(("127.0.0.1", self.port)) as onward:
                onward.sendall(request)
                connection.sendall(read_request(onward))  # an answer is framed as a request is


def test_a_writer_killed_over_a_poison_answer_loses_nothing_and_repeats_nothing(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    iggy.create_topic(stream, "influxdb-dlq", 1)
    payloads = [message(number, note=NOTE, value="text" if number in BAD else number) for number in range(COUNT)]
    for first in range(0, COUNT, 100):
        send(iggy.address, stream, payloads[first:first + 100])
    poisoner = Poisoner(int(influxdb.url.rpartition(":")[2]))
    with raw_server(poisoner) as port:
        sink = start_sink(iggy.address, stream, SandboxInflux(f"http://127.0.0.1:{port}"),
                          mapping="type_guard = false", batches=ONE_BATCH, options="max_restarts = 2")
        assert poisoner.asked.wait(60), sink.log()
        with Killer(sink, ["write-0"], set(BAD)) as killer:
            poisoner.may_answer.set()
            wait_until(partial(killer.has_signalled, 1), "the death of the writer")
            poisoner.poisons.clear()
        status = sink.settles(COUNT)
        assert status.batches > 10, "the batch that the writer died of was not read again in parts"
        assert sorted(point["time"] - 1_000 for point in influxdb.points()) == [
            number for number in range(COUNT) if number not in BAD]
        letters = [json.loads(record) for record in read_topic(iggy.address, stream, "influxdb-dlq")]
        assert sorted((one["offset"], one["reason"]) for one in letters) == [(bad, "type_conflict") for bad in BAD]
        assert sink.stop() == 0
