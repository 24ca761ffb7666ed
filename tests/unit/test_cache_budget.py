"""Whatever payloads hold, what an encoder remembers of them stays within its budget, and lines stay the same."""

import gc
import json
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import MappingConfig
from pipeline.fields.types import FieldTypeRegistry
from stages.mapping.batch import BatchOrigin
from stages.mapping.budget import Budget, Share
from stages.mapping.encoder import Encoder
from stages.mapping.records.type_guard import TypeGuard

MEGABYTE = 1_000_000


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3_000)), max_size=200))
def test_all_shares_together_stay_within_the_limit(entries: list[tuple[int, int]]) -> None:
    budget, kept = Budget(10_000), [list[int]() for _ in range(5)]
    shares: list[Share] = [budget.share(own.clear) for own in kept]
    for cache, cost in entries:
        if shares[cache].takes(cost):
            kept[cache].append(cost)
        else:
            assert cost > 10_000 // 8
        assert [sum(own) for own in kept] == [share.used for share in shares]
        assert budget.used == sum(map(sum, kept)) <= 10_000
    shares.clear()
    assert budget.used == 0


def devices(number: int) -> dict[str, object]:
    """A new device in each message, in four shapes."""
    return {"device": f"device-{number // 4:08}", **{f"v{n}": 1.5 for n in range(number % 4 + 1)}}


def long_tags(number: int) -> dict[str, object]:
    """Tags of 2,000 characters."""
    return {"device": f"{number:08}" * 250, "v": 1}


def field_names(number: int) -> dict[str, object]:
    """New field names in each message."""
    return {"device": "d", **{f"field-{number}-{n}": n for n in range(20)}}


def measurements(number: int) -> dict[str, object]:
    """A new measurement in each message."""
    return {"device": "d", "m": f"measurement-{number}", "v": 1}


def tag_map(number: int) -> dict[str, object]:
    """New tag keys and values in each message."""
    return {"tags": {f"key-{number}-{n}": f"value-{number}" for n in range(5)}, "v": 1}


@pytest.mark.parametrize(("make", "mapping"), [
    (devices, MappingConfig(tag_fields=("device",))), (long_tags, MappingConfig(tag_fields=("device",))),
    (field_names, MappingConfig(tag_fields=("device",))),
    (measurements, MappingConfig(measurement_from="field", measurement_field="m", tag_fields=("device",))),
    (tag_map, MappingConfig(tag_map_field="tags"))])
def test_the_caches_of_an_encoder_stay_within_their_budget(make: Callable[[int], dict[str, object]],
                                                           mapping: MappingConfig) -> None:
    budget = Budget(MEGABYTE)
    book = FieldTypeRegistry(max_bytes=1)

    def guard(_: str) -> TypeGuard:
        return TypeGuard(lambda measurement, kinds: book.decide("", measurement, kinds)[0], budget)

    encoder = Encoder(mapping, "ns", "s", "t", guard, budget)
    count = 500 if make is field_names else 3_000

    def batches() -> Iterator[list[bytes]]:
        for first in range(0, count, 500):
            yield [json.dumps(make(number)).encode() for number in range(first, first + 500)]

    gc.collect()
    tracemalloc.start()
    points = 0
    for batch in batches():
        encoded = encoder.encode(batch, BatchOrigin(timestamps=list(range(1, 501))))
        assert not encoded.rejects
        points += encoded.points
    del batch, encoded
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert points == count
    assert budget.used <= budget.limit
    assert used < 4 * MEGABYTE


def test_lines_are_the_same_whatever_is_forgotten() -> None:
    mapping = MappingConfig(tag_fields=("device",))
    small, large = (Encoder(mapping, "ns", "s", "t", None, Budget(size)) for size in (20_000, 100 * MEGABYTE))
    for first in range(0, 3_000, 100):
        batch = [json.dumps(devices(number % 1_000)).encode() for number in range(first, first + 100)]
        origin = BatchOrigin(timestamps=list(range(first + 1, first + 101)))
        assert small.encode(batch, origin) == large.encode(batch, origin)
