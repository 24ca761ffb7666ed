"""Samples of a batch are its first lines, each with the message that it comes from; whatever the body is."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compression import compress
from pipeline.config.schema import Config, TopicConfig
from pipeline.subscriptions import Subscriptions
from pipeline.wire import common
from pipeline.wire import sink as wire
from stages.write.batch import Batch
from stages.write.sampling import LINE_CHARACTERS, SAMPLE_LINES, samples_of

TOPICS = Subscriptions(Config(topics=(TopicConfig(stream="s", topic="a"), TopicConfig(stream="s", topic="b"))))


def batch_of(buckets: list[wire.BucketLines], *messages: int) -> Batch:
    parts = [wire.LinesPart(wire.Range(1, wire.Partition(topic, 3), 100, 99 + count, count, 0), count, count, 100,
                            None, []) for topic, count in enumerate(messages)]
    return Batch(wire.Lines(parts, buckets))


@pytest.mark.parametrize("gzip", [False, True])
def test_the_first_lines_with_their_messages(gzip: bool) -> None:
    bodies = [b"m v=1 1\nm v=2 2\nm v=3 3", b"n v=4 4"]
    batch = batch_of([wire.BucketLines("", 3, [(0,), (1,), (2,)]), wire.BucketLines("other", 1, [(3,)])], 2, 2)
    found = samples_of(batch, [compress(one) if gzip else one for one in bodies], TOPICS, ["main"], gzip).lines
    assert [(one.topic, one.partition, one.offset, one.bucket, one.line) for one in found] == [
        ("a", 3, 100, "", "m v=1 1"), ("a", 3, 101, "", "m v=2 2"), ("b", 3, 100, "", "m v=3 3"),
        ("b", 3, 101, "other", "n v=4 4")]


def test_samples_are_bounded() -> None:
    batch = batch_of([wire.BucketLines("", 10_000, None)], 10_000)
    found = samples_of(batch, [b"\n".join([b"m v=1"] * 10_000)], TOPICS, ["main"], False).lines
    assert len(found) == SAMPLE_LINES
    batch = batch_of([wire.BucketLines("", 1, None)], 1)
    assert len(samples_of(batch, [b"x" * 10_000_000], TOPICS, ["main"], False).lines[0].line) == LINE_CHARACTERS


@given(st.binary(), st.booleans())
def test_a_body_that_is_none_is_no_harm(body: bytes, gzip: bool) -> None:
    samples = samples_of(batch_of([wire.BucketLines("", 7, None)], 7), [body], TOPICS, ["main"], gzip)
    assert len(samples.lines) <= SAMPLE_LINES
    assert msgspec.msgpack.decode(common.encode(samples), type=wire.LineSamples) == samples
