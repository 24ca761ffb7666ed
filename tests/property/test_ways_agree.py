"""Every way from messages to lines writes what the rules write, and takes for JSON what Python's own parser does.

Some seeds of `scripts/fuzz`, which tries others for as long as it is told to; and messages that Hypothesis makes.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.corpus import GOOD, TOKENS
from tests.fuzz.run import try_corpus, try_seed
from tests.fuzz.ways import MAPPINGS, depends_on_neighbours, difference, is_object, misjudged

SEEDS = 400


def test_each_message_of_the_corpus() -> None:
    assert not try_corpus()


@pytest.mark.parametrize("part", range(4))
def test_mutated_batches(part: int) -> None:
    wrong = [f"seed {seed}: {words}" for seed in range(part, SEEDS, 4) for words in try_seed(seed)]
    assert not wrong


@st.composite
def near_json(draw: st.DrawFn) -> bytes:
    """JSON text with a piece of it exchanged."""
    values: Any = st.one_of(st.none(), st.booleans(), st.integers(-10, 10), st.floats(), st.text(max_size=4))
    message = json.dumps(draw(st.dictionaries(st.sampled_from(["site", "a", "b", "ts", "data"]), values, min_size=1)),
                         ensure_ascii=draw(st.booleans())).encode()
    at, to = sorted((draw(st.integers(0, len(message))), draw(st.integers(0, len(message)))))
    return message[:at] + draw(st.one_of(st.sampled_from([b"", *TOKENS]), st.binary(max_size=3))) + (
        message[at if draw(st.booleans()) else to:])


@given(st.sampled_from(MAPPINGS), near_json(), st.lists(near_json(), max_size=3))
def test_what_is_nearly_json(mapping: Any, before: bytes, payloads: list[bytes]) -> None:
    payloads = [before, *payloads]
    assert not difference(mapping, [[before] * 2, [GOOD[0]] * 2], payloads)
    assert not depends_on_neighbours(mapping, payloads)
    assert not [words for payload in payloads if (words := misjudged(mapping, payload))]


@pytest.mark.parametrize(("payload", "known"), [
    (b'{"v":1}', True), (b'\xef\xbb\xbf{"v":-NaN}', True), (b'{"v":"nan"}', True), (b"[1]", None), (b'{"v":01}', False),
    (b'{nan:1}', False), (b'{"v":"\\ud800"}', False), (b'{"v":"\xff"}', False)])
def test_the_judge_knows_what_it_judges_by(payload: bytes, known: bool | None) -> None:
    assert is_object(payload) is known
