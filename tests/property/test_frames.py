"""Parts of messages come out of frames as they went in, and no frame is over the limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.wire import common, frames, payload_frame
from pipeline.wire import sink as wire
from pipeline.wire.frames import FRAME_BYTES, cut, joined
from pipeline.wire.sink.control import ONE_PART_BYTES

SIZES = st.one_of(st.integers(0, 100), st.sampled_from([
    FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES, 2 * FRAME_BYTES + 7]))


@given(st.lists(SIZES, min_size=1, max_size=6), st.integers(0, 255))
def test_parts_are_cut_and_joined(sizes: list[int], fill: int) -> None:
    parts = [bytes([fill + number & 255]) * size for number, size in enumerate(sizes)]
    sent = [bytes(frame) for frame in cut(parts)]
    assert all(len(frame) <= FRAME_BYTES for frame in sent)
    assert joined(sent) == parts


@given(st.lists(st.integers(0, 2), max_size=30))
def test_any_frames_are_joined_or_refused(kinds: list[int]) -> None:
    some = [(b"", b"x", bytes(frames.FRAME_BYTES))[kind] for kind in kinds]
    try:
        parts = joined(some)
    except ValueError:
        assert kinds[-1] == 2
    else:
        assert sum(map(len, parts)) == sum(map(len, some))


@given(st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=3), min_size=1, max_size=5),
       st.sampled_from([0, ONE_PART_BYTES - 100, ONE_PART_BYTES, 2 * FRAME_BYTES]))
def test_batches_come_out_as_they_went_in_however_many_parts_they_are_sent_in(
        some: list[list[bytes]], more: int) -> None:
    batches, payloads = [], []
    for number, texts in enumerate(some):
        texts[0] += bytes(more if not number else 0)
        batches.append(wire.Batch(wire.Range(1, wire.Partition(0, number), 0, len(texts) - 1, len(texts),
                                             sum(map(len, texts)), 0, 0), 0, None, None))
        payloads.append((payload_frame.joined(texts), payload_frame.lengths(texts)))
    parts = wire.batches_parts(batches, payloads)
    assert (len(parts) == 1) == (len(some) > 1 and sum(len(joined) for joined, _ in payloads) < ONE_PART_BYTES)
    found = wire.read_batches([bytes(frame) for frame in cut(parts)])
    assert [batch for batch, _, _ in found] == batches
    assert [payload_frame.split(bytes(joined), bytes(lengths)) for _, joined, lengths in found] == some


@pytest.mark.parametrize("message", [
    wire.Batches([wire.Batch(wire.Range(1, wire.Partition(0, 0), 0, 0, 1, 1, 0, 0), 0, None, None)], [(b"", b"")] * 2),
    wire.Batches([], [(b"", b"")])])
def test_payloads_without_their_batches_are_refused(message: wire.Batches) -> None:
    with pytest.raises(wire.Malformed):
        wire.read_batches([common.encode(message)])
    with pytest.raises(wire.Malformed):
        wire.read_batches([common.encode(message), b"[]", b""])
