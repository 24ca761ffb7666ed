"""The compiled ways write what the exact rules write: random documents, mappings with any option, good and bad mixed.

Some seeds of `scripts/fuzz`, which tries others for as long as it is told to.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import structs
from msgspec.structs import replace

from pipeline.config.schema import MappingConfig, RuleConfig
from pipeline.points.field_type import FieldType
from pipeline.wire.sink import Ways
from stages.mapping.budget import Budget
from stages.mapping.compiled import general, supported
from stages.mapping.compiled.schema import MAX_KEYS
from stages.mapping.compiled.templates import LEARNED_AFTER, MAX_TEMPLATES
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.mapping.records.type_guard import TypeGuard
from tests.fuzz.devices import try_devices
from tests.fuzz.general import try_documents
from tests.support.points import normal

SEEDS = 320
PARTS = 8
FIRST = 1_700_000_000_000
MAPPING = MappingConfig(tag_fields=("site",), timestamp_from="field", timestamp_field="ts")


@pytest.mark.parametrize("part", range(PARTS))
def test_random_documents_and_mappings(part: int) -> None:
    counts: dict[str, int] = {}
    wrong = [f"seed {seed}: {words}" for seed in range(part, SEEDS, PARTS) for words in try_documents(seed, counts)]
    assert not wrong
    # Many mappings reject most documents: what is compared has to go the compiled way all the same.
    assert counts["general"] > counts["messages"] / 50


@pytest.mark.parametrize("part", range(2))
def test_messages_of_devices_with_something_odd_now_and_then(part: int) -> None:
    counts: dict[str, int] = {}
    wrong = [f"seed {seed}: {words}" for seed in range(part, 48, 2) for words in try_devices(seed, counts)]
    assert not wrong
    assert counts["general"] > counts["messages"] / 5


def messages(count: int, **more: Any) -> list[bytes]:
    """Messages that differ in their values."""
    return [json.dumps({"site": f"s{number % 3}", "v": number + 0.5, "ts": 1_700_000_000_000 + number, **more}).encode()
            for number in range(count)]


def general_encoder() -> Encoder:
    """An encoder that has no templates."""
    encoder = Encoder(MAPPING, "ms", "stream", "topic")
    encoder.templates.is_possible = False
    return encoder


def test_an_option_that_the_compiled_ways_do_not_know_sends_all_by_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {field.name for field in structs.fields(MappingConfig)} >= supported.KNOWN
    monkeypatch.setattr(supported, "KNOWN", supported.KNOWN - {"tag_fields"})
    encoder = Encoder(MAPPING, "ms", "stream", "topic")
    assert not encoder.is_compiled and not encoder.templates.is_possible
    assert Encoder(replace(MAPPING, tag_fields=()), "ms", "stream", "topic").is_compiled


def test_a_new_key_is_learned_within_its_batch() -> None:
    encoder = general_encoder()
    encoder.encode(messages(100), BatchOrigin())
    before = encoder.general.written
    encoded = encoder.encode(messages(100, w=1), BatchOrigin())
    assert encoded.points == 100
    assert encoder.general.written - before > 80


def test_messages_with_a_bad_one_among_them_go_the_general_way() -> None:
    encoder = general_encoder()
    encoder.encode(messages(20), BatchOrigin())
    before = encoder.general.written
    encoded = encoder.encode([*messages(99), b'{"site":', b'{"ts":1700000000000}'], BatchOrigin())
    assert (encoded.points, [reject.at for reject in encoded.rejects]) == (99, [99, 100])
    assert encoder.general.written - before == 99


def test_documents_whose_keys_are_data_are_compiled_for_a_while_only() -> None:
    encoder = general_encoder()
    for batch in range(50):
        payloads = [json.dumps({"ts": 1_700_000_000_000, f"id-{batch}-{number}": number}).encode()
                    for number in range(200)]
        assert encoder.encode(payloads, BatchOrigin()).points
    assert encoder.general.schema.keys <= MAX_KEYS
    assert encoder.general.compiled_keys <= 4_000 + 0.1 * 50 * 200 * 4 + MAX_KEYS


def test_the_first_message_of_a_field_decides_its_type_also_where_it_does_not_fit() -> None:
    """A field that is new to the guard is asked for in the messages' order."""
    outcomes = []
    for compiled in (False, True):
        known: dict[str, FieldType] = {}

        def ask(measurement: str, kinds: Mapping[str, FieldType],
                known: dict[str, FieldType] = known) -> Mapping[str, FieldType]:
            return {field: known.setdefault(field, kind) for field, kind in kinds.items()}

        encoder = Encoder(MAPPING, "ms", "stream", "topic", lambda bucket, ask=ask: TypeGuard(ask))  # type: ignore[misc]
        encoder.is_compiled = compiled
        encoder.encode([b'{"site":"a","v":1,"w":null,"ts":1700000000000}'] * 2, BatchOrigin())
        batch = [b'{"site":"a","w":"x","other":1,"ts":1700000000001}',
                 b'{"site":"b","v":2,"w":5,"ts":1700000000002}', b'{"site":"c","w":"y","ts":1700000000003}']
        outcomes.append(normal(encoder.encode(batch, BatchOrigin())))
    assert outcomes[0] == outcomes[1]
    assert [reject.reason for reject in outcomes[0][3]] == ["type_conflict"]


def test_drops_and_routes_agree_with_limits() -> None:
    mapping = replace(MAPPING, max_depth=1, rules=(RuleConfig(when="v > 5", then="drop"),))
    outcomes = []
    for compiled in (False, True):
        encoder = Encoder(mapping, "ms", "stream", "topic")
        encoder.is_compiled = compiled
        encoder.encode(messages(20), BatchOrigin())
        outcomes.append(normal(encoder.encode(messages(20) + messages(20, list=[1]), BatchOrigin())))
    assert outcomes[0] == outcomes[1]
    assert [reject.reason for reject in outcomes[0][3]] == ["too_deep"] * 20


def test_messages_are_counted_by_the_way_that_they_went() -> None:
    encoder = Encoder(MAPPING, "ms", "stream", "topic")
    encoder.encode(messages(20), BatchOrigin())
    learned = encoder.take_ways()
    assert (learned.general + learned.exact, learned.uniform, learned.compiled) == (20, 0, 2)
    assert 0 < learned.slow_share < 1
    encoder.encode(messages(20), BatchOrigin())
    encoder.encode([*messages(3), b'{"site":'], BatchOrigin())
    later = encoder.take_ways()
    assert (later.uniform, later.general, later.exact, later.compiled) == (20, 3, 1, 0)
    assert encoder.take_ways() == Ways() and Ways().slow_share == 0


def test_fields_that_come_no_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(general, "FORGET_AFTER", 100)
    encoder = general_encoder()
    encoder.encode(messages(50, old=1), BatchOrigin())
    for _ in range(6):
        encoder.encode(messages(50, new=1), BatchOrigin())
    assert "field new" in encoder.general.description() and "field old" not in encoder.general.description()
    assert encoder.take_ways().forgotten == 1
    for _ in range(6):
        assert encoder.encode(messages(50, new=1), BatchOrigin()).points == 50
    assert encoder.take_ways().forgotten == 0


def test_what_is_learned_of_documents_whose_keys_are_data_is_bounded() -> None:
    """Ten new keys in each message; `scripts/bench keys` measures more of them."""
    encoder = Encoder(MAPPING, "ms", "stream", "topic", budget=Budget(10_000_000))
    points = 0
    for batch in range(12):
        payloads = [json.dumps({"ts": 1_700_000_000_000 + number, "site": "s",
                                **{f"{'ghijklmn'[number % 8]}-{batch}-{number}-{key}": key
                                   for key in range(10)}}).encode() for number in range(250)]
        points += encoder.encode(payloads, BatchOrigin()).points
    assert points == 3_000
    assert encoder.general.schema.keys <= MAX_KEYS and encoder.rules.budget.used <= 10_000_000
    assert encoder.general.compiled_keys <= 4_000 + 0.1 * 3_000 * 4 + MAX_KEYS
    assert len(encoder.templates) <= MAX_TEMPLATES and encoder.templates.learned <= 3_000 / LEARNED_AFTER + 2


@pytest.mark.parametrize("options", [
    {"rules": (RuleConfig(when="v > 50", then="drop"), RuleConfig(when="site == 's1'", measurement="hot", bucket="b"))},
    {"bucket_template": "b-{site}", "allowed_buckets": ("b-s0", "b-s1", "b-s2")}, {"header_tags": {"h": "place"}},
    {"rules": (RuleConfig(when="header('h') == 'h1' or not exists(w)", then="drop"),), "measurement_from": "field",
     "measurement_field": "site"}])
def test_rules_buckets_and_headers_have_templates(options: dict[str, Any]) -> None:
    config = replace(MAPPING, **options)
    encoder, exact = Encoder(config, "ms", "stream", "topic"), Encoder(config, "ms", "stream", "topic")
    exact.is_compiled = False
    payloads = [*messages(150, w=True), *messages(50), b'{"site":"s1","v":"x","ts":1700000000000}']
    headers = [(("", "h1", "h2")[index % 3],) for index in range(len(payloads))] if config.header_names() else None
    for _ in range(3):
        expected, found = (side.encode(payloads, BatchOrigin(headers=headers)) for side in (exact, encoder))
        assert normal(found) == normal(expected)
    assert encoder.templates.written >= 400 - len(expected.rejects)


def test_numbers_in_strings_have_templates() -> None:
    mapping = replace(MAPPING, types={"v": "float", "n": "integer", "on": "boolean"})
    encoder = Encoder(mapping, "ms", "stream", "topic")
    payloads = [b'{"site":"s","v":"%d.5","n":"-%d","on":"true","ts":%d}' % (number, number + 1, FIRST + number)
                for number in range(30)]
    for _ in range(2):
        encoder.encode(payloads, BatchOrigin())
        encoder.uniform = None
    odd = [payloads[0].replace(b"0.5", value) for value in (b"+1", b"007", b"x")]
    encoder.templates.least_messages = 2
    encoded = encoder.encode(payloads[:20] + odd, BatchOrigin())
    assert encoder.templates.written == 30 + 18 and [reject.reason for reject in encoded.rejects] == ["bad_field"]
    assert b"topic,site=s v=1.5,n=-2i,on=true 1700000000001\n" in encoded.body
