"""Messages whose keys are data (identifiers, times): what an encoder learns of them, and what they cost and keep."""

import time
from typing import Final

from msgspec import Struct

from pipeline.config.schema import MappingConfig
from pipeline.supervisor.malloc import keep_freed_memory
from pipeline.testbed.harness.procfs import pss_bytes

#: New keys in each message, and messages of a batch.
_KEYS: Final = 10
_BATCH: Final = 1_000
_MAPPING: Final = MappingConfig(tag_fields=("device",), timestamp_from="field", timestamp_field="ts")


class Found(Struct, frozen=True):
    """One run."""

    distinct_keys: int
    #: Keys that the schema holds in the end; how often code was made, and for how many keys in all; schemas and
    #: templates forgotten.
    schema_keys: int
    compiled: int
    compiled_keys: int
    forgotten: int
    #: Memory of the process, proportional set size: that before is with as many messages that have the same ten keys.
    memory_mb_before: float
    memory_mb: float
    #: Of all caches.
    cache_mb: float
    #: Microseconds of CPU a message, and of the same messages one by one by the rules.
    us: float
    exact_us: float


def measure(keys: int) -> Found:
    """Encodes so many messages with the same keys, and then as many with keys that are all different."""
    import os

    from stages.mapping.encoder import BatchOrigin, Encoder

    keep_freed_memory()
    origin, batches = BatchOrigin(), max(1, keys // _KEYS // _BATCH)
    encoder, exact = (Encoder(_MAPPING, "ms", "stream", "topic") for _ in range(2))
    exact.is_compiled = False
    for number in range(batches):
        encoder.encode(_messages(number, same=True), origin)
    before = pss_bytes(os.getpid())
    seconds, after = [0.0, 0.0], 0
    for at, one in enumerate((encoder, exact)):
        for number in range(batches):
            payloads = _messages(number, same=False)
            began = time.process_time()
            one.encode(payloads, origin)
            seconds[at] += time.process_time() - began
        after = after or pss_bytes(os.getpid())
    ways, messages = encoder.take_ways(), batches * _BATCH
    return Found(messages * _KEYS, encoder.general.schema.keys, ways.compiled, encoder.general.compiled_keys,
                 ways.forgotten, round(before / 1e6, 1), round(after / 1e6, 1),
                 round(encoder.rules.budget.used / 1e6, 1), round(seconds[0] / messages * 1e6, 2),
                 round(seconds[1] / messages * 1e6, 2))


def _messages(batch: int, same: bool) -> list[bytes]:
    first = batch * _BATCH
    return [b'{"device":"d%d","ts":%d,%b}' % (number % 100, 1_700_000_000_000 + number, b",".join(
        [b'"k-%08d":%d' % (key if same else number * _KEYS + key, key) for key in range(_KEYS)]))
            for number in range(first, first + _BATCH)]


def text(found: Found) -> str:
    """For people."""
    return (f"{found.distinct_keys:,} distinct keys: {found.us} us a message, {found.exact_us} by the rules alone; the "
            f"schema holds {found.schema_keys} keys, code was made {found.compiled} times for {found.compiled_keys:,} "
            f"keys, {found.forgotten} forgotten; memory {found.memory_mb_before} MB before and {found.memory_mb} MB "
            f"after, {found.cache_mb} MB of it caches")
