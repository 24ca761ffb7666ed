"""What the last release has written is read; what a later one has written is refused by name."""

import asyncio
import json
from pathlib import Path

import pytest

from pipeline.commands.config import load_config
from pipeline.config.digest import WIRE_VERSION, config_digest, wire_version
from pipeline.coordinator.admission import Admission
from pipeline.dead_letters.letters import LETTER_VERSION, DeadLetter, Tombstone, decode_record, tombstones
from pipeline.source_coordinator.state import VERSION, StateError, decode_state, encode_state
from pipeline.source_coordinator.state_file import StateFile
from pipeline.wire import sink as wire

RELEASES = sorted((Path(__file__).parents[1] / "data").glob("release-*"))
RELEASE = RELEASES[-1]
#: Where the versions of today are written down.
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "versions.rst"


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_configuration_state_and_dead_letters_of_a_release_are_read(release: Path) -> None:
    config = load_config(str(release / "pipeline.toml"), {})
    state = asyncio.run(StateFile(config.sources[0]).load(0))
    assert state.identity.source == "copy" and state.watermarks["sensors"] > 1_700_000_000_000_000_000
    assert len(state.fingerprints["sensors"]) == 2
    again = decode_state(encode_state(state), config.sources[0], "here", "state_file", "move it")
    assert again.watermarks == state.watermarks and again.fingerprints == state.fingerprints
    records = [decode_record(line) for line in (release / "dead-letters.ndjson").read_bytes().splitlines()]
    letters = [record for record in records if isinstance(record, DeadLetter)]
    (purged,) = [record for record in records if isinstance(record, Tombstone)]
    assert [letter.payload_bytes() for letter in letters] == [b"no json", b"\xff\xfe", '{"device":"ü","v":NaN'.encode()]
    assert purged.mark == "purged" and purged.ids == (letters[0].id,)


def test_a_state_of_a_later_release_is_refused_and_not_called_damaged() -> None:
    config = load_config(str(RELEASE / "pipeline.toml"), {})
    stored = json.loads((RELEASE / "source-state.json").read_text())
    for later in ({**stored, "version": VERSION + 1, "new": {}}, {"format": stored["format"], "version": 99}):
        with pytest.raises(StateError, match="was written by a later release") as caught:
            decode_state(json.dumps(later).encode(), config.sources[0], "here", "state_file", "move it away")
        assert "damaged" not in str(caught.value)
    with pytest.raises(StateError, match="damaged"):
        decode_state(json.dumps({**stored, "begun": 1}).encode(), config.sources[0], "here", "state_file", "move it")


def test_dead_letters_carry_their_version_and_later_ones_are_skipped_by_name() -> None:
    (tombstone,) = tombstones("purged", ["x"], 10_000)
    assert json.loads(tombstone)["version"] == LETTER_VERSION
    letter = json.loads((RELEASE / "dead-letters.ndjson").read_text().splitlines()[0])
    for record in (letter, json.loads(tombstone)):
        with pytest.raises(ValueError, match="written by a later release"):
            decode_record(json.dumps({**record, "version": LETTER_VERSION + 1}).encode())


def test_an_encoder_of_another_release_is_turned_away_by_name() -> None:
    digest = config_digest(load_config(str(RELEASE / "pipeline.toml"), {}))
    assert wire_version(digest) == WIRE_VERSION
    admission = Admission(digest, [])
    assert admission.refusal(wire.Join("encode-far", 1, digest), None) == ""
    refusal = admission.refusal(wire.Join("encode-far", 1, f"{WIRE_VERSION + 1}-{digest.partition('-')[2]}"), None)
    assert "another release" in refusal and "install the same release" in refusal
    for other in ("", "x", "-", "1-", "²-x", "999999999999-x", f"{WIRE_VERSION}-x"):
        assert "give it the same file" in admission.refusal(wire.Join("encode-far", 1, other), None)


def test_the_page_of_versions_has_those_of_the_code() -> None:
    lines = PAGE.read_text().splitlines()
    for layout, version in (("state of a source", VERSION), ("dead letter, and", LETTER_VERSION),
                            ("messages between hosts", WIRE_VERSION)):
        (line,) = [line for line in lines if line.startswith(layout)]
        assert line[34:42].strip() == str(version)
