"""The table of mappings: tests/data/mapping-cases.toml, by the compiled code and by the rules."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.config.schema import MappingConfig, Precision
from pipeline.fields.types import FieldTypeRegistry
from stages.mapping.encoder import BatchOrigin, Encoded, Encoder
from stages.mapping.records.type_guard import TypeGuard
from tests.support.points import normal


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One row of the table."""

    name: str
    messages: list[str] = []
    #: Instead of `messages`, payloads as hexadecimal digits.
    hex: list[str] = []
    mapping: MappingConfig = MappingConfig()
    precision: Precision = "ms"
    #: Of each message, its headers in the order of `header_tags`.
    headers: list[tuple[str, ...]] | None = None
    lines: list[str] = []
    #: bucket -> lines that go there instead.
    buckets: dict[str, list[str]] = {}
    reject: str = ""
    detail: str = ""
    #: How many are rejected for that reason.
    rejected: int = 1
    #: "kind: detail" of each notice; of those of times only where there is one.
    notices: list[str] = []
    dropped: int = 0


class BucketLines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows about one subject."""

    name: str
    cases: list[Case]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    groups: list[BucketLines]


FILE = Path(__file__).parents[1] / "data" / "mapping-cases.toml"
TABLE = msgspec.convert(tomllib.loads(FILE.read_text()), Table)
CASES = [pytest.param(case, id=f"{group.name}: {case.name}") for group in TABLE.groups for case in group.cases]


def an_encoder(case: Case) -> Encoder:
    """An encoder for the case's mapping, with a type guard of its own where the mapping has one."""
    book = FieldTypeRegistry()

    def guard(bucket: str) -> TypeGuard:
        return TypeGuard(lambda measurement, kinds: book.decide(bucket, measurement, kinds)[0])

    return Encoder(case.mapping, case.precision, "telemetry", "sensors", guard if case.mapping.type_guard else None)


def encode(encoder: Encoder, case: Case) -> Encoded:
    """The case's messages, encoded as one batch."""
    payloads = [bytes.fromhex(text) for text in case.hex] or [message.encode() for message in case.messages]
    return encoder.encode(payloads, BatchOrigin(
        partition=3, first=42, timestamps=[1_700_000_000_000_000] * len(payloads), arrival=1_700_000_009_000_000,
        headers=case.headers))


def shown(encoded: Encoded) -> dict[str, Any]:
    """What came out, as the table has it."""
    return {
        "buckets": {lines.bucket: lines.body.decode() for lines in encoded.groups},
        "rejects": [reject.reason for reject in encoded.rejects],
        "dropped": encoded.dropped,
    }


@pytest.mark.parametrize("case", CASES)
def test_the_rules_write_what_the_table_says(case: Case) -> None:
    encoder = an_encoder(case)
    encoder.is_compiled = False
    encoded = encode(encoder, case)
    buckets = {"": case.lines, **case.buckets} if case.lines else case.buckets
    assert shown(encoded) == {
        "buckets": {bucket: "".join(f"{line}\n" for line in lines) for bucket, lines in buckets.items()},
        "rejects": [case.reject] * case.rejected if case.reject else [],
        "dropped": case.dropped,
    }, encoded.rejects
    assert not case.detail or case.detail in encoded.rejects[0].detail
    notices = encoder.rules.notices.take()
    said = [f"{notice.kind}: {notice.detail}" for notice in notices]
    if not any("implausible_time" in notice for notice in case.notices):
        said = [notice for notice in said if "implausible_time" not in notice]
    assert said == case.notices
    assert all(notice.place.startswith("partition 3 offset 4") for notice in notices)


@pytest.mark.parametrize("case", CASES)
def test_the_compiled_code_writes_what_the_rules_write(case: Case) -> None:
    by_rules, compiled = an_encoder(case), an_encoder(case)
    by_rules.is_compiled = False
    expected = encode(by_rules, case)
    notices = by_rules.rules.notices.take()
    assert normal(encode(compiled, case)) == normal(expected)
    assert compiled.rules.notices.take() == notices
    assert normal(encode(compiled, case)) == normal(encode(by_rules, case))  # now it has learned from them
    assert compiled.rules.notices.take() == notices


def test_the_table_is_large_enough_and_every_name_is_there_once() -> None:
    names = [(group.name, case.name) for group in TABLE.groups for case in group.cases]
    assert len(names) >= 60
    assert len(set(names)) == len(names)
