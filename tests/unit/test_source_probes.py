"""One query for many idle measurements: only what the answer certainly says to be without points is not read."""

import json

import pytest

from pipeline.points.fingerprints import Fingerprints
from pipeline.points.windows import TimeWindow
from pipeline.source_coordinator.ledger import PROBE_WITHIN, WatermarkLedger
from pipeline.source_coordinator.stride import Stride
from stages.languages.flux import FluxDialect
from stages.languages.influxql import InfluxqlDialect
from stages.languages.language import Dialect, QueryError
from stages.languages.v3 import JsonDialect

NAMES = ["a", "b", 'c"; DROP', "d\\", "e"]
WINDOWS = [(name, TimeWindow(10 + number, 20)) for number, name in enumerate(NAMES)]
ROW = {"name": "b", "columns": ["time", "f"], "values": [[11, 1]]}
INFLUXQL = b"".join(json.dumps({"results": [result]}).encode() + b"\n" for result in (
    {"statement_id": 0}, {"statement_id": 1, "series": [ROW]}, {"statement_id": 2},
    {"statement_id": 3, "series": [ROW], "partial": True}, {"statement_id": 3, "series": [ROW]}, {"statement_id": 4}))
#: Recorded with 2.7.12.
FLUX = (b"#datatype,string,long,string\r\n#group,false,false,false\r\n#default,_result,,\r\n,result,table,_value\r\n"
        b",,0,b\r\n,,0,d\\\r\n\r\n")
CASES: list[tuple[Dialect, bytes]] = [(InfluxqlDialect("db"), INFLUXQL), (FluxDialect("b"), FLUX)]


@pytest.mark.parametrize(("dialect", "answer"), CASES)
def test_what_has_no_points_is_told_from_what_has(dialect: Dialect, answer: bytes) -> None:
    assert dialect.read_probe(WINDOWS, answer) == {"a", 'c"; DROP', "e"}


@pytest.mark.parametrize(("dialect", "answer"), CASES)
def test_an_answer_that_is_cut_anywhere_hides_no_points(dialect: Dialect, answer: bytes) -> None:
    for end in range(len(answer)):
        try:
            empty = dialect.read_probe(WINDOWS, answer[:end])
        except QueryError:
            continue
        assert empty <= {"a", 'c"; DROP', "e"}, end


def test_an_error_of_one_statement_leaves_the_others() -> None:
    answer = (b'{"results":[{"statement_id":0}]}\n{"results":[{"statement_id":1,"error":"no"}]}\n'
              b'{"results":[{"statement_id":1,"error":"not executed"}]}\n')
    assert InfluxqlDialect("db").read_probe(WINDOWS, answer) == {"a"}


def test_without_measurements_in_flux_all_are_empty() -> None:
    assert FluxDialect("b").read_probe([("a", WINDOWS[0][1]), ("x\ry", WINDOWS[0][1])], b"\r\n") == {"a"}


@pytest.mark.parametrize("dialect", [
    InfluxqlDialect("db", custom=True), FluxDialect("b", custom=True), JsonDialect("db", "sql")])
def test_what_cannot_be_probed_is_read(dialect: Dialect) -> None:
    assert dialect.probe(WINDOWS) is None


@pytest.mark.parametrize(("start", "target", "probed"), [
    (PROBE_WITHIN + 1, PROBE_WITHIN + 9, True), (PROBE_WITHIN - 1, PROBE_WITHIN + 9, False),
    (PROBE_WITHIN, 2 * PROBE_WITHIN, False)])
def test_a_window_that_may_contain_the_beginning_of_a_shard_is_read(start: int, target: int, probed: bool) -> None:
    ledger = WatermarkLedger(start - 1, Stride(ordered=True), 10, 0, 0, Fingerprints(10))
    page = ledger.next(start)
    assert page is not None and ledger.probe(target) is None  # it was never read
    ledger.page_read(page.seq, page.attempt, start, 0, start)
    ledger.confirm(page.seq, page.attempt, [])
    assert (ledger.probe(target) is not None) == probed
    assert (ledger.next(target) is None) == probed
