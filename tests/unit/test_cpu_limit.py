"""A message that takes too much CPU time is given up; those around it are written, and waiting costs nothing."""

import signal
from collections.abc import Iterator

import pytest

from pipeline.config.schema import MappingConfig
from stages.mapping.cpu_limit import CpuLimit, TooSlow
from stages.mapping.encoder import BatchOrigin, Encoder


class Clock:
    """CPU seconds, as a test says."""

    now = 0.0

    def __call__(self) -> float:
        """What they are now."""
        return self.now


def test_what_is_at_work_for_too_long_is_stopped_once() -> None:
    clock = Clock()
    limit = CpuLimit(2.0, clock)
    limit.begin()
    for clock.now in (1.0, 2.0, 3.0):
        limit.tick()
    clock.now = 3.1
    with pytest.raises(TooSlow):
        limit.tick()
    clock.now = 10.0
    limit.tick()


def test_each_message_has_a_limit_of_its_own() -> None:
    clock = Clock()
    limit = CpuLimit(2.0, clock)
    for clock.now in (1.0, 2.5, 4.0, 5.5):
        limit.begin()
        limit.tick()
    limit.end()
    clock.now = 100.0
    limit.tick()


@pytest.fixture
def encoder() -> Iterator[Encoder]:
    """An encoder with a timer, as the process has it, that stops a message after 0.1 s."""
    made = Encoder(MappingConfig(explode="e", max_message_cpu_ms=100, merge_duplicates=False), "ns", "s", "t")
    before = signal.signal(signal.SIGALRM, lambda number, frame: made.cpu.tick())
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    yield made
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_slow_message_is_rejected_alone(encoder: Encoder) -> None:
    slow = b'{"e":[' + b",".join([b'{"a":1,"b":2,"c":{"d":3}}'] * 90_000) + b"]}"
    payloads = [b'{"v":1}', slow, b'{"v":2}', b'{"e":[1,2]}']
    encoded = encoder.encode(payloads, BatchOrigin(timestamps=[1_700_000_000_000_000] * len(payloads)))
    assert encoded.points == 4
    assert [(reject.at, reject.reason) for reject in encoded.rejects] == [(1, "too_slow")]
