"""One type for each field: who decides, what is converted, what is a conflict, and what a new coordinator knows."""

import logging
from pathlib import Path

import pytest

from pipeline import wire
from pipeline.counsel import Counsel
from pipeline.schema import Config, MappingConfig, SinkConfig
from pipeline.types import Kind, TypeBook, declared_types, space_of
from stages.mapping.guard import Guard
from stages.mapping.reject import Reject

LOGGER = logging.getLogger("test")


def a_guard(book: TypeBook) -> Guard:
    """A guard that asks this book."""
    return Guard(lambda measurement, kinds: book.decide("db", measurement, kinds)[0])


def test_the_first_type_stays_for_its_measurement_and_space() -> None:
    book = TypeBook()
    assert book.decide("db", "m", {"f": "float"})[0] == {"f": "float"}
    assert book.decide("db", "m", {"f": "integer", "g": "string"})[0] == {"f": "float", "g": "string"}
    assert book.decide("db", "n", {"f": "integer"})[0] == {"f": "integer"}
    assert book.decide("other", "m", {"f": "integer"})[0] == {"f": "integer"}


def test_declared_types_come_before_what_a_message_has() -> None:
    mapping = MappingConfig(types={"a.b": "integer", "j": "json"}, field_renames={"j": "a text"})
    config = Config(sinks=(SinkConfig(name="one", topics=(), mapping=mapping),))
    book = TypeBook(declared_types(config))
    kinds: dict[str, Kind] = {"a_b": "float", "a\\ text": "float", "c": "float"}
    assert book.decide(space_of(config, 0), "m", kinds)[0] == {"a_b": "integer", "a\\ text": "string", "c": "float"}


@pytest.mark.parametrize(("first", "then", "written"), [
    ("1.5", "2i", "2"), ("1.5", "2u", "2"), ("1i", "2.0", "2i"), ("1i", "2u", "2i"), ("1u", "2i", "2u"),
    ("1u", "1e2", "100u"), ('"a"', '"b"', '"b"'), ("true", "false", "false"),
])
def test_a_number_becomes_the_number_that_the_field_has(first: str, then: str, written: str) -> None:
    book = TypeBook()
    a_guard(book).converted("m", {"f=": first})
    assert a_guard(book).converted("m", {"f=": then}) == {"f=": written}


@pytest.mark.parametrize(("first", "then"), [
    ("1i", "2.5"), ("1u", "-2i"), ("1i", "9223372036854775808u"), ("1.5", '"a"'), ("1.5", "true"), ('"a"', "1i"),
    ("true", "1i"),
])
def test_what_would_lose_something_is_a_conflict(first: str, then: str) -> None:
    guard = a_guard(TypeBook())
    guard.converted("m", {"f=": first})
    with pytest.raises(Reject) as caught:
        guard.converted("m", {"f=": then})
    assert caught.value.reason == "type_conflict"


def test_what_is_known_is_not_asked_for_again() -> None:
    asked: list[dict[str, Kind]] = []
    book = TypeBook()
    guard = Guard(lambda measurement, kinds: asked.append(dict(kinds)) or book.decide("", measurement, kinds)[0])
    for fields in ({"f=": "1"}, {"f=": "2"}, {"f=": "3", "g=": "true"}, {"g=": "false"}):
        guard.converted("m", fields)
    assert asked == [{"f": "float"}, {"g": "boolean"}]


def test_a_new_coordinator_of_the_same_run_knows_what_was_decided(tmp_path: Path) -> None:
    config = Config()
    Counsel(config, str(tmp_path), LOGGER).answer(wire.AskTypes("db", "m", {"f": "float"}))
    (journal,) = tmp_path.iterdir()
    with journal.open("ab") as file:
        file.write(b'["db","m","cut sho')
    for field in ("g", "h"):
        counsel = Counsel(config, str(tmp_path), LOGGER)
        assert counsel.answer(wire.AskTypes("db", "m", {"f": "integer"})) == [wire.Types("db", "m", {"f": "float"})]
        counsel.answer(wire.AskTypes("db", "m", {field: "string"}))
