"""Payloads in one frame come out as they went in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.wire import payload_frame


@given(st.lists(st.one_of(st.binary(), st.sampled_from([b"", b",\n", b"]", b"[", b"\n"])), max_size=8))
def test_payloads_come_out_as_they_went_in(payloads: list[bytes]) -> None:
    frame = memoryview(payload_frame.joined(payloads))
    assert payload_frame.split(frame, memoryview(payload_frame.lengths(payloads))) == payloads


def test_json_payloads_make_one_json_array() -> None:
    assert json.loads(payload_frame.joined([b'{"a":1}', b"2"])) == [{"a": 1}, 2]


def test_lengths_of_another_frame_are_refused() -> None:
    with pytest.raises(ValueError, match="holds no payloads"):
        payload_frame.split(payload_frame.joined([b"abc"]), payload_frame.lengths([b"ab"]))
