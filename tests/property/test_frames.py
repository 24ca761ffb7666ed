"""Parts of messages come out of frames as they went in, and no frame is over the limit."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.wire import frames
from pipeline.wire.frames import FRAME_BYTES, cut, joined

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
