"""A state in parts: a log of whole, torn and interleaved states gives back exactly those that are whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.source_coordinator.state_parts import Part, Writer, cut, joined, part_of

ME, OTHER = Writer("run-1", "process 1 on a"), Writer("run-2", "process 2 on b")


def sent(part: Part) -> Part:
    """A part as it comes back from a topic."""
    return part_of(part.headers(), part.content)


@given(content=st.binary(max_size=300), size=st.integers(1, 64))
def test_the_parts_of_a_state_are_its_content_and_each_is_small_enough(content: bytes, size: int) -> None:
    parts = [sent(part) for part in cut(content, "s", ME, size)]
    assert joined(parts) == content
    assert b"".join(part.content for part in parts) == content
    assert all(len(part.content) <= size for part in parts)
    assert {part.writer for part in parts} == {ME}


@given(content=st.binary(max_size=100), size=st.integers(1, 20), data=st.data())
def test_what_is_not_all_of_a_state_in_its_order_is_none(content: bytes, size: int, data: st.DataObject) -> None:
    whole = list(cut(content, "s", ME, size))
    # Of the same content, so that only its name tells it apart.
    other = list(cut(content, "t", OTHER, size))
    parts = data.draw(st.lists(st.sampled_from(whole + other), max_size=len(whole) + 1))
    assert (joined(parts) is not None) == (parts in (whole, other))


@given(content=st.binary(min_size=1, max_size=100), size=st.integers(1, 20), data=st.data())
def test_a_state_is_never_joined_over_parts_of_another_writer(content: bytes, size: int, data: st.DataObject) -> None:
    whole = list(cut(content, "s", ME, size))
    torn = list(whole)
    torn[data.draw(st.integers(0, len(whole) - 1))] = Part("t", 1, len(whole), OTHER, content)
    assert joined(torn) is None or len(whole) == 1


@pytest.mark.parametrize("headers", [
    {}, {"part": "1 of 1"}, {"part": "1 of 1", "state": "s"}, {"part": "0 of 1", "state": "s", "run": "r"},
    {"part": "2 of 1", "state": "s", "run": "r"}, {"part": "1 of", "state": "s", "run": "r"},
    {"part": "1 of 9999999999", "state": "s", "run": "r"}, {"part": "one of 2", "state": "s", "run": "r"}])
def test_a_message_that_is_no_part_is_told(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        part_of(headers, b"")


@given(st.dictionaries(st.sampled_from(["part", "state", "run", "writer"]), st.text(max_size=12)), st.binary())
def test_whatever_headers_give_a_part_or_a_value_error(headers: dict[str, str], payload: bytes) -> None:
    try:
        part = part_of(headers, payload)
    except ValueError:
        return
    assert 1 <= part.number <= part.of and part.content == payload
