"""The mapping against a loop by hand, workload by workload: CPU of both in one run, gzip included, in turns."""

import re
import statistics
import subprocess
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from pipeline.compression import GZIP_WINDOW_BITS, compress
from pipeline.errors import PipelineError
from pipeline.supervisor.malloc import keep_freed_memory
from pipeline.testbed.workloads.catalogue import NAMES, Workload, workload

#: Messages of a batch, and batches of new messages that each side is timed for.
MESSAGES: Final = 5_000
BATCHES: Final = 5
#: Batches that the encoder learns from before.
LEARNED: Final = 2
#: The geometric mean of the ratios, and the least of them, that this version had where it was made
#: (docs/explanation/performance.rst), and the share of them that a run must reach.
COMMITTED_GEOMEAN: Final = 3.39
COMMITTED_WORST: Final = 2.38
LEAST_SHARE: Final = 0.75
_LINE: Final = re.compile(rb'((?:[^ \\\n]|\\.)+) ((?:[^ "\\]|\\.|"(?:[^"\\]|\\.)*")+) ([0-9-]+)\n', re.DOTALL)
_FIELD: Final = re.compile(rb'((?:[^=\\]|\\.)+=)("(?:[^"\\]|\\.)*"|[^,]*),?', re.DOTALL)


class Row(Struct, frozen=True):
    """One workload, microseconds of CPU a message."""

    name: str
    about: str
    #: Bytes of a message, on average.
    bytes: int
    ours: float
    plain: float
    #: How many times the CPU of ours the loop takes, with the same gzip.
    ratio: float
    #: The same with the gzip of Python's own zlib in the loop, at its default level.
    zlib_ratio: float
    #: Telegraf's whole process; 0 where it was not asked, or cannot do it.
    telegraf: float = 0.0


class Table(Struct, frozen=True):
    """All workloads that were measured."""

    rows: list[Row]
    #: Of the ratios.
    geomean: float
    worst: float
    #: Of the ratios with zlib in the loop.
    zlib_geomean: float
    zlib_worst: float


def measure(names: Sequence[str] = NAMES, telegraf: str = "", batches: int = BATCHES, messages: int = MESSAGES,
            report: Callable[[Row], None] = lambda row: None) -> Table:
    """Measures workloads. Raises PipelineError where the two write different points.

    `telegraf` is the path of its program; "" leaves it out. `report` gets each row when it is there.
    """
    keep_freed_memory()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            rows.append(_row(workload(name, Path(folder)), telegraf, batches, messages, Path(folder)))
            report(rows[-1])
    ratios, with_zlib = [row.ratio for row in rows], [row.zlib_ratio for row in rows]
    return Table(rows, round(statistics.geometric_mean(ratios), 2), min(ratios),
                 round(statistics.geometric_mean(with_zlib), 2), min(with_zlib))


def _row(work: Workload, telegraf: str, batches: int, messages: int, folder: Path) -> Row:
    from stages.mapping.encoder import BatchOrigin, Encoder

    encoder = Encoder(work.mapping, work.precision, "stream", "sensors")
    origin = BatchOrigin(arrival=time.time_ns() // 1_000)
    for number in range(LEARNED):
        payloads = work.payloads(number * messages, messages)
        encoded = encoder.encode(payloads, origin)
        _compare(work.name, {lines.bucket: lines.body for lines in encoded.groups}, work.loop.bodies(payloads))
    ours, plain, with_zlib, size = [], [], [], 0
    for number in range(LEARNED, LEARNED + batches):
        payloads = work.payloads(number * messages, messages)
        size += sum(map(len, payloads))
        began = time.process_time()
        bodies = [compress(lines.body) for lines in encoder.encode(payloads, origin).groups]
        between = time.process_time()
        by_hand = list(work.loop.bodies(payloads).values())
        mapped = time.process_time()
        for body in by_hand:
            compress(body)
        compressed = time.process_time()
        for body in by_hand:
            zlib.compress(body, wbits=GZIP_WINDOW_BITS)
        ended = time.process_time()
        ours.append((between - began) / messages * 1e6)
        plain.append((compressed - between) / messages * 1e6)
        with_zlib.append((mapped - between + ended - compressed) / messages * 1e6)
        if len(bodies) != len(by_hand):
            raise PipelineError(f"{work.name}: {len(bodies)} buckets, and by hand {len(by_hand)}")
    us = min(ours), min(plain)  # other load of the machine only adds
    theirs = _telegraf(telegraf, work, folder) if telegraf else 0.0
    return Row(work.name, work.about, round(size / batches / messages), round(us[0], 2), round(us[1], 2),
               round(us[1] / us[0], 2), round(min(with_zlib) / us[0], 2), theirs)


def _compare(name: str, ours: dict[str, bytes], plain: dict[str, bytes]) -> None:
    """Raises PipelineError where two do not write the same points; the order of a point's fields has no meaning."""
    for bucket in {*ours, *plain}:
        found, expected = (_points(bodies.get(bucket, b"")) for bodies in (ours, plain))
        if found != expected:
            more, less = list((found - expected).elements()), list((expected - found).elements())
            raise PipelineError(f"{name}: the two write different points; only ours {more[:2]}, only by hand "
                                f"{less[:2]}")


def _points(body: bytes) -> "Counter[tuple[bytes, frozenset[tuple[bytes, bytes]], bytes]]":
    return Counter([(head, frozenset(_FIELD.findall(fields)), at) for head, fields, at in _LINE.findall(body)])


def text(table: Table) -> str:
    """For people."""
    lines = [f"{'':18} {'bytes':>6} {'ours, us':>9} {'plain, us':>10} {'ratio':>6} {'with zlib':>10}"
             + ("  telegraf, us" if any(row.telegraf for row in table.rows) else "")]
    lines += [row_text(row) for row in table.rows]
    return "\n".join([*lines, f"geometric mean {table.geomean:.2f}, worst {table.worst:.2f}; with the gzip of Python's "
                             f"zlib in the plain loop {table.zlib_geomean:.2f} and {table.zlib_worst:.2f}"])


def row_text(row: Row) -> str:
    """One line."""
    return (f"{row.name:18} {row.bytes:6} {row.ours:9.2f} {row.plain:10.2f} {row.ratio:6.2f} {row.zlib_ratio:10.2f}"
            + (f" {row.telegraf:13.2f}" if row.telegraf else ""))


def is_fast_enough(table: Table) -> bool:
    """Whether a table is within what `--check` asks for."""
    return table.geomean >= COMMITTED_GEOMEAN * LEAST_SHARE and table.worst >= COMMITTED_WORST * LEAST_SHARE


def verdict(table: Table) -> str:
    """What `--check` says of a table."""
    return (f"workloads: geometric mean {table.geomean:.2f} (committed {COMMITTED_GEOMEAN:.2f}), worst "
            f"{table.worst:.2f} (committed {COMMITTED_WORST:.2f}), least {LEAST_SHARE:.0%} of each: "
            + ("good" if is_fast_enough(table) else "TOO SLOW; see docs/explanation/performance.rst"))


#: What Telegraf's parser of JSON is told for a workload that it can do.
_TELEGRAF: Final = {
    "flat": 'tag_keys = ["site", "device"]\njson_time_key = "ts"\njson_time_format = "unix_ms"',
    "optional_keys": 'tag_keys = ["site", "device"]\njson_time_key = "ts"\njson_time_format = "unix_ms"',
    "random_order": 'tag_keys = ["site", "device"]\njson_time_key = "ts"\njson_time_format = "unix_ms"',
    "log_lines": 'tag_keys = ["host", "level"]\njson_string_fields = ["message"]\njson_time_key = "ts"\n'
                 'json_time_format = "unix_ms"',
    "wide": 'tag_keys = ["machine"]\njson_time_key = "ts"\njson_time_format = "unix_ms"',
    "four_shapes_mixed": 'tag_keys = ["type", "device"]\njson_string_fields = ["fix"]\njson_time_key = "ts"\n'
                         'json_time_format = "unix_ms"',
    "zigbee2mqtt": 'tag_keys = ["device_friendlyName"]\njson_string_fields = ["*"]\njson_time_key = "last_seen"\n'
                   'json_time_format = "2006-01-02T15:04:05Z07:00"',
    "tasmota": 'tag_keys = ["Hostname"]\njson_string_fields = ["*"]\njson_time_key = "Time"\n'
               'json_time_format = "2006-01-02T15:04:05"',
}
#: Share of the messages that it may write no point of: those with equal series and times become one.
_TELEGRAF_LOSS: Final = 0.01
#: Messages that its process is timed for; what it takes to start is measured with one.
_TELEGRAF_MESSAGES: Final = 100_000


def _telegraf(program: str, work: Workload, folder: Path) -> float:
    """Microseconds of CPU a message of Telegraf's process, from a file to a line protocol file; 0: it can't."""
    if work.name not in _TELEGRAF:
        return 0.0
    seconds = []
    for count in (1, _TELEGRAF_MESSAGES):
        payloads, lines = work.payloads(0, count), folder / "messages.json"
        lines.write_bytes(b"[" + b",\n".join(payloads) + b"]\n")
        written = folder / "telegraf.lp"
        config = folder / "telegraf.conf"
        config.write_text(
            f'[agent]\ninterval = "1s"\nomit_hostname = true\nmetric_batch_size = 5000\nmetric_buffer_limit = 1000000\n'
            f'[[inputs.file]]\nfiles = ["{lines}"]\ndata_format = "json"\nname_override = "sensors"\n'
            f'{_TELEGRAF[work.name]}\n[[outputs.file]]\nfiles = ["{written}"]\ndata_format = "influx"\n')
        seconds.append(_cpu_of([program, "--config", str(config), "--once", "--quiet"]))
        points = written.read_bytes().count(b"\n")
        written.unlink()
        if points < count * (1 - _TELEGRAF_LOSS):
            raise PipelineError(f"{work.name}: Telegraf has written {points} points of {count} messages")
    return round((seconds[1] - seconds[0]) / _TELEGRAF_MESSAGES * 1e6, 2)


def _cpu_of(command: list[str]) -> float:
    """CPU seconds of a process that ends by itself. Raises PipelineError where it fails."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PipelineError(f"{command[0]} ended with exit code {done.returncode}: {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
