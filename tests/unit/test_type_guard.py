"""One type for each field: who decides, what is converted, what is a conflict, and what a new coordinator knows."""

import logging
import resource
import signal
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Config, InfluxConfig, MappingConfig, SinkConfig
from pipeline.coordinator.field_registry import FieldRegistry
from pipeline.fields.types import FieldTypeRegistry, declared_types, namespace_of
from pipeline.points.field_type import FieldType
from pipeline.wire import sink as wire
from stages.mapping.records.type_guard import TypeGuard
from stages.mapping.reject import Reject

LOGGER = logging.getLogger("test")


def a_guard(book: FieldTypeRegistry) -> TypeGuard:
    """A guard that asks this book."""
    return TypeGuard(lambda measurement, kinds: book.decide("db", measurement, kinds)[0])


def test_the_first_type_stays_for_its_measurement_and_space() -> None:
    book = FieldTypeRegistry()
    assert book.decide("db", "m", {"f": "float"})[0] == {"f": "float"}
    assert book.decide("db", "m", {"f": "integer", "g": "string"})[0] == {"f": "float", "g": "string"}
    assert book.decide("db", "n", {"f": "integer"})[0] == {"f": "integer"}
    assert book.decide("other", "m", {"f": "integer"})[0] == {"f": "integer"}


def test_declared_types_come_before_what_a_message_has() -> None:
    mapping = MappingConfig(types={"a.b": "integer", "j": "json"}, field_renames={"j": "a text"})
    config = Config(sinks=(SinkConfig(name="one", topics=(), mapping=mapping),))
    book = FieldTypeRegistry(declared_types(config))
    kinds: dict[str, FieldType] = {"a_b": "float", "a\\ text": "float", "c": "float"}
    assert book.decide(namespace_of(config, 0), "m", kinds)[0] == {"a_b": "integer", "a\\ text": "string", "c": "float"}


@pytest.mark.parametrize(("first", "then", "written"), [
    ("1.5", "2i", "2"), ("1.5", "2u", "2"), ("1i", "2.0", "2i"), ("1i", "2u", "2i"), ("1u", "2i", "2u"),
    ("1u", "1e2", "100u"), ('"a"', '"b"', '"b"'), ("true", "false", "false"),
])
def test_a_number_becomes_the_number_that_the_field_has(first: str, then: str, written: str) -> None:
    book = FieldTypeRegistry()
    a_guard(book).converted("m", {"f=": first})
    assert a_guard(book).converted("m", {"f=": then}) == {"f=": written}


@pytest.mark.parametrize(("first", "then"), [
    ("1i", "2.5"), ("1u", "-2i"), ("1i", "9223372036854775808u"), ("1.5", '"a"'), ("1.5", "true"), ('"a"', "1i"),
    ("true", "1i"),
])
def test_what_would_lose_something_is_a_conflict(first: str, then: str) -> None:
    guard = a_guard(FieldTypeRegistry())
    guard.converted("m", {"f=": first})
    with pytest.raises(Reject) as caught:
        guard.converted("m", {"f=": then})
    assert caught.value.reason == "type_conflict"


def test_what_is_known_is_not_asked_for_again() -> None:
    asked: list[dict[str, FieldType]] = []
    book = FieldTypeRegistry()

    def ask(measurement: str, kinds: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        asked.append(dict(kinds))
        return book.decide("", measurement, kinds)[0]

    guard = TypeGuard(ask)
    for fields in ({"f=": "1"}, {"f=": "2"}, {"f=": "3", "g=": "true"}, {"g=": "false"}):
        guard.converted("m", fields)
    assert asked == [{"f": "float"}, {"g": "boolean"}]


def test_a_new_coordinator_of_the_same_run_knows_what_was_decided(tmp_path: Path) -> None:
    config = Config()
    FieldRegistry(config, str(tmp_path), "run", LOGGER).answer(wire.FieldTypesRequest("db", "m", {"f": "float"}))
    (journal,) = tmp_path.iterdir()
    with journal.open("ab") as file:
        file.write(b'["db","m","cut sho')
    for field in ("g", "h"):
        counsel = FieldRegistry(config, str(tmp_path), "run", LOGGER)
        assert counsel.answer(wire.FieldTypesRequest("db", "m", {"f": "integer"})) == [
            wire.FieldTypes("db", "m", {"f": "float"})]
        counsel.answer(wire.FieldTypesRequest("db", "m", {field: "string"}))


def test_types_are_of_one_run_and_those_of_others_are_removed(tmp_path: Path) -> None:
    config = Config()
    FieldRegistry(config, str(tmp_path), "one", LOGGER).answer(wire.FieldTypesRequest("db", "m", {"f": "float"}))
    other = FieldRegistry(config, str(tmp_path), "two", LOGGER)
    assert other.answer(wire.FieldTypesRequest("db", "m", {"f": "string"})) == [
        wire.FieldTypes("db", "m", {"f": "string"})]
    assert [path.name for path in tmp_path.iterdir()] == ["types-two.ndjson"]


def test_a_type_that_cannot_be_written_down_is_told_to_nobody(tmp_path: Path) -> None:
    config = Config()
    counsel = FieldRegistry(config, str(tmp_path), "run", LOGGER)
    counsel.answer(wire.FieldTypesRequest("db", "m", {"f": "float"}))
    ask = wire.FieldTypesRequest("db", "m", {"g": "float"})
    size = (tmp_path / "types-run.ndjson").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 3, limits[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                counsel.answer(ask)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "types-run.ndjson").stat().st_size == size
    assert counsel.answer(ask) == [wire.FieldTypes("db", "m", {"g": "float"})]
    again = FieldRegistry(config, str(tmp_path), "run", LOGGER)
    assert again.answer(wire.FieldTypesRequest("db", "m", {"g": "string"})) == [
        wire.FieldTypes("db", "m", {"g": "float"})]


@given(st.lists(st.tuples(st.text(max_size=30), st.dictionaries(st.text(max_size=300), st.just("float"), max_size=20))))
def test_the_memory_of_types_is_bounded_whatever_is_asked(asked: list[tuple[str, dict[str, FieldType]]]) -> None:
    book = FieldTypeRegistry(max_bytes=5_000)
    kept = []
    for measurement, kinds in asked:
        decided, new = book.decide("", measurement, kinds)
        assert decided.keys() == kinds.keys()
        kept += new
    assert sum(150 + len(one.field.encode()) for one in kept) <= 5_000
    again = FieldTypeRegistry(max_bytes=5_000)
    again.restore(kept)
    for one in kept:
        assert again.decide("", one.measurement, {one.field: "string"})[0] == {one.field: one.type}


def test_two_million_measurements_cost_no_more_than_the_limit() -> None:
    book = FieldTypeRegistry(max_bytes=10_000_000)
    tracemalloc.start()
    for number in range(60_000):
        assert book.decide("", f"measurement-{number}", {"value": "float"})[0] == {"value": "float"}
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert book.full
    assert used < 10_000_000


def test_each_retention_policy_and_organisation_has_types_of_its_own() -> None:
    servers = [InfluxConfig(database="d"), InfluxConfig(database="d", retention_policy="long"),
               InfluxConfig(bucket="d", org="one"), InfluxConfig(bucket="d", org="two")]
    config = Config(sinks=tuple(SinkConfig(name=str(number), topics=(), mapping=MappingConfig(), influxdb=server)
                                for number, server in enumerate(servers)))
    assert len({namespace_of(config, sink) for sink in range(4)}) == 4
