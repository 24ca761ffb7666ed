"""The sketch of a tag's distinct values."""

import random

import pytest

from pipeline.fields.hyperloglog import ERROR, REGISTERS, HyperLogLog


def a_sketch(texts: list[str]) -> HyperLogLog:
    """A sketch of these texts."""
    sketch = HyperLogLog()
    for text in texts:
        sketch.add(text)
    return sketch


@pytest.mark.parametrize("count", [0, 1, 10, 100, 1_000, 3_000, 5_000, 20_000, 100_000])
def test_an_estimate_is_within_four_standard_errors(count: int) -> None:
    estimate = a_sketch([f"device-{number}" for number in range(count)]).estimate()
    assert abs(estimate - count) <= max(4 * ERROR * count, 0.5)


def test_texts_that_come_again_do_not_count() -> None:
    sketch = a_sketch([f"{number}" for number in range(500)])
    assert not any(sketch.add(f"{number}") for number in range(500))


def test_merged_sketches_are_the_sketch_of_all_texts_in_any_order() -> None:
    texts = [f"{number}" for number in range(30_000)]
    random.Random(4).shuffle(texts)
    parts = [a_sketch(texts[first::3]) for first in range(3)]
    merged = HyperLogLog()
    for part in parts:
        merged.merge(bytes(part.registers))
    assert merged.registers == a_sketch(texts).registers
    assert len(merged.registers) == REGISTERS
