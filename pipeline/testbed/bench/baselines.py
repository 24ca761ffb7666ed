"""The same messages through what PyPI offers, into the same receiver, from memory: none of them has to read Iggy."""

import importlib
import json
import time
import zlib
from collections.abc import Callable
from typing import Any, Final

import requests

from pipeline.errors import PipelineError
from pipeline.testbed.bench.encoder import MAPPING, plain_loop
from pipeline.testbed.bench.results import Baseline
from pipeline.testbed.harness import telemetry

#: Messages that each writes, and how many go together.
MESSAGES: Final = 30_000
BATCH: Final = 5_000
_GZIP_WINDOW_BITS: Final = 31

#: (URL, payloads) -> nothing; returns when all are acknowledged.
Way = Callable[[str, list[bytes]], None]


def compare(url: str, messages: int = MESSAGES) -> list[Baseline]:
    """Runs every baseline against the counting receiver at `url`. Raises PipelineError where a package is missing."""
    payloads = [telemetry.telemetry(index) for index in range(messages)]
    return [_timed(name, way, url, payloads) for name, way in WAYS.items()]


def _timed(name: str, way: Way, url: str, payloads: list[bytes]) -> Baseline:
    before = requests.get(f"{url}/sandbox/stats", timeout=10).json()["bytes"]
    began, cpu = time.monotonic(), time.process_time()
    try:
        way(url, payloads)
    except ImportError as error:
        raise PipelineError(f"{error}; install the baselines with "
                            "pip install 'iggy-influxdb-pipeline[compare]'") from None
    seconds, used = time.monotonic() - began, time.process_time() - cpu
    sent = requests.get(f"{url}/sandbox/stats", timeout=10).json()["bytes"] - before
    return Baseline(name, round(len(payloads) / seconds), round(used / len(payloads) * 1e6, 2),
                    round(sent / len(payloads), 1))


def _record(payload: bytes) -> dict[str, Any]:
    message = json.loads(payload)
    return {"measurement": telemetry.TOPIC, "tags": {name: message[name] for name in MAPPING.tag_fields},
            "fields": {name: message[name] for name in MAPPING.field_names}, "time": message[MAPPING.timestamp_field]}


def _influxdb_client(url: str, payloads: list[bytes]) -> None:
    """Its batching writer, with gzip."""
    library: Any = importlib.import_module("influxdb_client")
    options = library.WriteOptions(batch_size=BATCH, flush_interval=1_000)
    with library.InfluxDBClient(url=url, token="sandbox-token", org="sandbox", enable_gzip=True) as client:
        with client.write_api(write_options=options) as api:
            for payload in payloads:
                api.write("sandbox", record=_record(payload), write_precision="ms")


def _influxdb3_python(url: str, payloads: list[bytes]) -> None:
    """Its synchronous writer, a batch at a time, with gzip."""
    library: Any = importlib.import_module("influxdb_client_3")
    options = library.write_client_options(write_options=library.SYNCHRONOUS)
    with library.InfluxDBClient3(host=url, token="sandbox-token", database="sandbox", org="sandbox", enable_gzip=True,
                                 write_client_options=options) as client:
        for first in range(0, len(payloads), BATCH):
            client.write([_record(payload) for payload in payloads[first:first + BATCH]], write_precision="ms")


def _requests_loop(url: str, payloads: list[bytes]) -> None:
    """A loop by hand: decode, build the line, zlib's gzip, one POST after the other."""
    with requests.Session() as session:
        for first in range(0, len(payloads), BATCH):
            packer = zlib.compressobj(wbits=_GZIP_WINDOW_BITS)
            body = packer.compress(plain_loop(payloads[first:first + BATCH])) + packer.flush()
            session.post(f"{url}/api/v2/write?org=sandbox&bucket=sandbox&precision=ms", data=body, timeout=30,
                         headers={"Content-Encoding": "gzip", "Authorization": "Token sandbox-token"}
                         ).raise_for_status()


WAYS: Final[dict[str, Way]] = {"influxdb-client": _influxdb_client, "influxdb3-python": _influxdb3_python,
                               "requests loop": _requests_loop}
