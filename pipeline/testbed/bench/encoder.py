"""The compiled mapping with gzip against a plain loop over decoded dicts without, in turns."""

import statistics
import time
from collections.abc import Callable
from typing import Final

import msgspec

from pipeline.compression import compress
from pipeline.config.schema import MappingConfig
from pipeline.errors import PipelineError
from pipeline.supervisor.malloc import keep_freed_memory
from pipeline.testbed.harness import telemetry

#: Rounds, and messages of each, that the encoders are timed for.
ROUNDS: Final = 15
MESSAGES: Final = 5_000
#: The ratio that this version had where it was made (docs/explanation/performance.rst), and the share of it that a run
#: must reach. The same code has 3.5 to 4.5 there, depending on what else the process has in its memory.
COMMITTED_RATIO: Final = 4.0
LEAST_SHARE: Final = 0.75
MAPPING: Final = MappingConfig(
    tag_fields=("site", "device"), field_strategy="explicit",
    field_names=("temperature", "humidity", "pressure", "battery", "ok"),
    timestamp_from="field", timestamp_field="ts", timestamp_format="epoch_ms")


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Microseconds of CPU a message of both, and their ratio. Raises PipelineError where they write different lines."""
    from stages.mapping.encoder import BatchOrigin, Encoder

    keep_freed_memory()
    payloads = [telemetry.telemetry(index) for index in range(MESSAGES)]
    encoder, origin = Encoder(MAPPING, "ms", telemetry.STREAM, telemetry.TOPIC), BatchOrigin()
    if encoder.encode(payloads, origin).body != plain_loop(payloads):
        raise PipelineError("the two encoders differ")
    compiled, generic = [], []
    for _ in range(rounds):
        compiled.append(_timed(lambda: compress(encoder.encode(payloads, origin).body)))
        generic.append(_timed(lambda: plain_loop(payloads)))
    us = [statistics.median(times) / MESSAGES * 1e6 for times in (compiled, generic)]
    return {"compiled_us_per_message": round(us[0], 3), "generic_us_per_message": round(us[1], 3),
            "ratio_to_generic_encoder": round(us[1] / us[0], 2)}


def is_fast_enough(ratio: float) -> bool:
    """Whether a ratio is within what `--check` asks for."""
    return ratio >= COMMITTED_RATIO * LEAST_SHARE


def verdict(ratio: float) -> str:
    """The text of `--check` for a ratio."""
    least = COMMITTED_RATIO * LEAST_SHARE
    return (f"ratio to the generic encoder {ratio:.2f}, committed {COMMITTED_RATIO:.2f}, least {least:.2f}: "
            + ("good" if is_fast_enough(ratio) else "TOO SLOW; see docs/explanation/performance.rst"))


def _escaped(text: str) -> str:
    return text.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


def plain_loop(payloads: list[bytes]) -> bytes:
    """The baseline: what one writes first, for messages that are all good. Decode to a dict, loop over its keys."""
    lines = []
    for payload in payloads:
        message = msgspec.json.decode(payload)
        line = telemetry.TOPIC
        for key in sorted(MAPPING.tag_fields):
            if value := message.pop(key, None):
                line += f",{_escaped(key)}={_escaped(value)}"
        time_ = message.pop(MAPPING.timestamp_field)
        fields = []
        for key, value in message.items():
            if isinstance(value, bool):
                fields.append(f"{_escaped(key)}={'true' if value else 'false'}")
            elif isinstance(value, int | float):
                fields.append(f"{_escaped(key)}={value}")
            elif isinstance(value, str):
                quoted = value.replace("\\", "\\\\").replace('"', '\\"')
                fields.append(f'{_escaped(key)}="{quoted}"')
        lines.append(f"{line} {','.join(fields)} {time_}\n")
    return "".join(lines).encode()


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
