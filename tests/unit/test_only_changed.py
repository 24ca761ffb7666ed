"""`do = "only_changed"`: what says nothing new is left out, and nothing else is, whoever encoded what came before."""

from collections.abc import Sequence

import pytest

from pipeline.config.schema import MappingConfig
from pipeline.config.steps_schema import ExplodeStep, OnlyChangedStep
from stages.mapping.batch import BatchOrigin
from stages.mapping.budget import Budget
from stages.mapping.encoder import Encoder

SECOND = 1_000_000


def an_encoder(step: OnlyChangedStep, budget: Budget | None = None) -> Encoder:
    """An encoder with this step."""
    mapping = MappingConfig(steps=(step,), tag_fields=("d",), merge_duplicates=False)
    return Encoder(mapping, "ns", "telemetry", "sensors", None, budget)


def written(encoder: Encoder, messages: Sequence[bytes], first: int = 0, at: float = 0, partition: int = 0,
            offsets: Sequence[int] | None = None) -> list[str]:
    """The series and fields that are written of messages, which come a second apart."""
    times = [1_700_000_000 * SECOND + round((at + index) * SECOND) for index in range(len(messages))]
    encoded = encoder.encode(messages, BatchOrigin(partition, first, offsets, times))
    assert encoded.rejects == []
    assert encoded.points + encoded.dropped == len(messages)
    return [line.rpartition(" ")[0].removeprefix("sensors,") for line in encoded.body.decode().splitlines()]


A1, A2, B1 = b'{"d":"a","v":1}', b'{"d":"a","v":2}', b'{"d":"b","v":1}'


def test_the_same_again_is_left_out_by_series() -> None:
    encoder = an_encoder(OnlyChangedStep(by=("d",)))
    assert written(encoder, [A1, A1, B1, A2, B1, A2, A1]) == ["d=a v=1", "d=b v=1", "d=a v=2", "d=a v=1"]


def test_the_state_goes_on_in_the_next_batch_and_each_partition_has_its_own() -> None:
    encoder = an_encoder(OnlyChangedStep(by=("d",)))
    assert written(encoder, [A1, A1]) == ["d=a v=1"]
    assert written(encoder, [A1, A1], partition=1) == ["d=a v=1"]
    assert written(encoder, [A1, A2], first=2, at=2) == ["d=a v=2"]


def test_after_the_longest_silence_the_same_is_written_again() -> None:
    encoder = an_encoder(OnlyChangedStep(by=("d",), longest_silence_ms=2_000))
    assert written(encoder, [A1] * 5) == ["d=a v=1"] * 3


def test_a_clock_that_goes_back_silences_nothing() -> None:
    encoder = an_encoder(OnlyChangedStep(by=("d",)))
    assert written(encoder, [A1]) == ["d=a v=1"]
    assert written(encoder, [A1], first=1, at=-100) == ["d=a v=1"]


@pytest.mark.parametrize(("first", "offsets"), [(5, None), (0, None), (0, [1, 3])])
def test_behind_a_gap_nothing_is_left_out(first: int, offsets: list[int] | None) -> None:
    encoder = an_encoder(OnlyChangedStep(by=("d",)))
    assert written(encoder, [A1]) == ["d=a v=1"]
    # Another encoder may have written another value in between, after which this one is a change.
    if offsets is None:
        assert written(encoder, [A1], first=first) == ["d=a v=1"]
    else:
        assert written(encoder, [A1, A1], offsets=offsets) == ["d=a v=1"]


def test_a_batch_that_is_encoded_again_gives_the_same() -> None:
    encoder = an_encoder(OnlyChangedStep(by=("d",)))
    first = written(encoder, [A1, A1, A2])
    assert written(encoder, [A1, A1, A2]) == first == ["d=a v=1", "d=a v=2"]


def test_what_counts_can_be_chosen() -> None:
    messages = [b'{"d":"a","v":1,"n":%d,"o":{"t":%d,"x":1}}' % (number, number) for number in range(3)]
    assert len(written(an_encoder(OnlyChangedStep(by=("d",))), messages)) == 3
    assert len(written(an_encoder(OnlyChangedStep(by=("d",), ignore=("n",))), messages)) == 3
    assert len(written(an_encoder(OnlyChangedStep(by=("d",), ignore=("n", "*.t"))), messages)) == 1
    assert len(written(an_encoder(OnlyChangedStep(by=("d",), path=("v", "o.x"))), messages)) == 1
    assert len(written(an_encoder(OnlyChangedStep(by=("d",), path=("o",))), messages)) == 3


def test_the_order_of_keys_does_not_count() -> None:
    assert written(an_encoder(OnlyChangedStep(by=("d",))), [b'{"d":"a","v":1,"w":2}', b'{"w":2,"d":"a","v":1}']
                   ) == ["d=a v=1,w=2"]


def test_a_message_without_its_series_is_written() -> None:
    encoder = an_encoder(OnlyChangedStep(by=("d",)))
    assert written(encoder, [b'{"v":1}', b'{"v":1}', b'{"d":null,"v":1}']) == ["sensors v=1"] * 3


def test_elements_of_one_message_are_compared_each_by_itself() -> None:
    mapping = MappingConfig(steps=(ExplodeStep(path="e"), OnlyChangedStep(by=("d",))), tag_fields=("d",),
                            merge_duplicates=False)
    encoder = Encoder(mapping, "ns", "telemetry", "sensors")
    message = b'{"e":[{"d":"a","v":1},{"d":"b","v":1},{"d":"a","v":1}]}'
    assert len(written_points(encoder, message, 0)) == 2
    assert len(written_points(encoder, message, 1)) == 0


def written_points(encoder: Encoder, message: bytes, offset: int) -> list[bytes]:
    """The lines of one message."""
    return encoder.encode([message], BatchOrigin(0, offset, None, [1_700_000_000 * SECOND])).body.splitlines()


def test_its_memory_is_bounded_and_when_it_is_full_nothing_is_lost() -> None:
    budget = Budget(100_000)
    encoder = an_encoder(OnlyChangedStep(by=("d",)), budget)
    messages = [b'{"d":"%d","v":1}' % number for number in range(3_000)]
    assert len(written(encoder, messages)) == 3_000
    assert budget.used <= budget.limit
    assert len(written(encoder, [messages[-1]] * 2, first=3_000)) <= 1
