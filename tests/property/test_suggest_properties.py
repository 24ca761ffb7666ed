"""`pipeline mapping suggest` for any messages: what it proposes loads, and rejects nothing avoidable."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.config import load_config
from pipeline.commands.preview import report_on
from pipeline.commands.preview_samples import Sample
from stages.mapping.suggest.inputs import UnknownFormat, detect_files, detect_messages
from stages.mapping.suggest.roles import is_nameable
from stages.mapping.suggest.suggest import About, as_toml, suggest

ABOUT = About("messages.ndjson", "telemetry", "sensors", "pipeline preview")
KEYS = st.one_of(
    st.sampled_from(["ts", "time", "timestamp", "device", "id", "a.b", "a", "b", "tags", "measurement", "v", "readings",
                     "a*", "$.x", "^a", "", "name", "a_b", "uptime", "created_at"]),
    st.text(st.characters(codec="utf-8"), max_size=6))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**66), 2**66), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=12), st.integers(1_700_000_000, 1_700_000_999),
    st.sampled_from(["21.5", "007", "n/a", "ON", "2023-11-14T22:13:20Z", "d1", "d2", "true", "12:01", "x\ny", "z\\"]))
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)), max_leaves=6)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
#: Messages of one shape with other values, as real ones are; and any.
ALIKE = st.dictionaries(KEYS, st.just(SCALARS), max_size=4).flatmap(
    lambda shape: st.lists(st.fixed_dictionaries(shape), min_size=1, max_size=8))


def suggested(payloads: list[bytes]) -> tuple[str, list[str]]:
    """The configuration, and the rejects of a preview with it."""
    suggestion = suggest(detect_messages(payloads), "telemetry", "sensors")
    text = as_toml(suggestion, ABOUT)
    config = load_text(text)
    report = report_on(config, 0, [Sample(f"message {number}", payload, offset=number, timestamp=1_700_000_000_000_000)
                                   for number, payload in enumerate(payloads)])
    return text, [outcome.reject for outcome in report.outcomes if outcome.reject]


def load_text(text: str) -> Any:
    """The configuration in a text."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suggested.toml"
        path.write_text(text)
        return load_config(str(path), {})


def is_excused(reject: str) -> bool:
    """Whether no mapping could have written the message: no line or configuration holds its text or name."""
    return reject.startswith("unwritable") or reject.startswith("type_conflict: ") and not is_nameable(
        reject.removeprefix("type_conflict: ").rpartition(": ")[2].partition("=")[0])


@given(st.one_of(st.lists(OBJECTS, min_size=1, max_size=6), ALIKE))
def test_what_is_suggested_loads_and_rejects_nothing_avoidable(messages: list[dict[str, Any]]) -> None:
    text, rejects = suggested([json.dumps(message, ensure_ascii=False).encode() for message in messages])
    assert [reject for reject in rejects if not is_excused(reject)] == [], text


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_bytes_of_any_kind_are_answered_with_a_configuration_or_a_sentence(payloads: list[bytes]) -> None:
    for detect in (detect_messages, detect_files):
        try:
            detected = detect(payloads)
        except UnknownFormat as error:
            assert str(error)
            continue
        load_text(as_toml(suggest(detected, "telemetry", "sensors"), ABOUT))
