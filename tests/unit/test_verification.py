"""What `pipeline verify` finds: points in every form of message, and differences in any order."""

import itertools
import random

import msgspec
import pytest

from pipeline.commands.verification.points import Comparison, Details, PointReader, Sums, Window, hash_of
from pipeline.config.source_schema import Format, OutputConfig
from pipeline.points.table import Column, Row, Table
from stages.convert.payloads import PageMessages, PointEncoder
from stages.produce.batching import make_sends
from stages.produce.sender import batch_options_of

COLUMNS = (Column("t=\\,", "tag", "string"), Column('a"=', "field", "float"), Column("s t", "field", "string"))
NAME = 'm, "=x'
ROWS: list[tuple[int, str | None, float | None, str | None]] = [
    (17, 'q" ', 1.5, 'line\nm,t=x f=1 5\n"'), (-18, None, None, "a\\"), (17, "=", 2.0, None)]


@pytest.mark.parametrize(("format_", "shape", "batch", "compression"), [
    (*one, *more) for one in itertools.product(["json", "line_protocol", "msgpack"], ["wide", "long"])
    for more in ((1, "none"), (2, "none"), (100, "gzip"))])
def test_points_are_found_in_every_form_of_message(format_: Format, shape: str, batch: int, compression: str) -> None:
    output = msgspec.convert({"stream": "s", "format": format_, "shape": shape, "batch_points": batch,
                              "compression": compression if batch > 1 else "none"}, OutputConfig)
    out = PageMessages()
    PointEncoder(NAME, COLUMNS, format_, shape == "long", 1_000_000).encode(Table(NAME, COLUMNS, [*ROWS]), None, out)
    assert not out.bad
    reader = PointReader(output, [NAME])
    sends = make_sends(out.payloads, out.series, 1, batch_options_of(output))
    points = [point for send in sends for message in send.payloads for point in reader.points(message)]
    assert points == out.payloads
    assert {reader.place(point) for point in points} == {(NAME, 17), (NAME, -18)}
    assert len({reader.key(point) for point in points}) == len(points)
    other = PageMessages()
    changed: list[Row] = [(time, tag, None if f is None else f + 1, None if s is None else s + "!")
                          for time, tag, f, s in ROWS]
    PointEncoder(NAME, COLUMNS, format_, shape == "long", 1_000_000).encode(Table(NAME, COLUMNS, changed), None, other)
    assert [reader.key(point) for point in other.payloads] == [reader.key(point) for point in points]
    assert not set(other.payloads) & set(points)


def test_differences_are_found_in_any_order() -> None:
    points = [(number % 7 * 10, b"%d" % number) for number in range(1_000)]
    for seed in range(5):
        comparison = Comparison(10)
        for one, sums in ((points, comparison.database),
                          (random.Random(seed).sample(points, len(points)), comparison.iggy)):
            for time, point in one:
                sums.setdefault(comparison.window("m", time), Sums()).add(hash_of(point))
        assert comparison.differing() == []
        comparison.iggy[Window("m", 20)].add(hash_of(b"7"))
        assert comparison.differing() == [Window("m", 20)]


def test_points_one_by_one() -> None:
    window, details = Window("m", 0), Details()
    for key, value in ((1, 10), (2, 20), (3, 30), (4, 40)):
        details.expect(window, key, value)
    # Sent twice; sent before and after it was changed; sent before only; and one that the database no longer has.
    for key, value in ((1, 10), (1, 10), (2, 19), (2, 20), (3, 29), (5, 50), (5, 50)):
        details.found(window, key, value)
    assert (details.missing(), details.changed()) == ({4}, {3})
    assert (details.repeated[window], details.extra[window]) == (1, 1)
    assert details.by_window({3, 4})[window] == 2


def test_points_of_two_policies_in_one_topic_have_one_key() -> None:
    window, details = Window("m", 0), Details()
    details.expect(window, 1, 10)
    details.expect(window, 1, 20)
    details.found(window, 1, 20)
    assert (len(details.missing()), details.changed()) == (1, set())
    details.found(window, 1, 10)
    assert (details.missing(), details.changed(), details.extra[window]) == (set(), set(), 0)
