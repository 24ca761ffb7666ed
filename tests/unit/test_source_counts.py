"""Numbers of points, series and first times: what real servers answered, and answers that are cut."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.source_preview import merged
from pipeline.points.times import MIN_TIME, parse_time
from pipeline.points.windows import TimeWindow
from stages.languages.flux import FluxDialect
from stages.languages.influxql import InfluxqlDialect
from stages.languages.language import Dialect, PointCount, QueryError
from stages.languages.v3 import JsonDialect

WINDOW = TimeWindow(10, 20)
FLUX, INFLUXQL, SQL = FluxDialect("b"), InfluxqlDialect("db"), JsonDialect("db", "sql")
#: Recorded with 2.7.12 and 1.6.7: measurements of which one field has 260 values, another 52.
FLUX_COUNT = (b"#datatype,string,long,string,long\r\n#group,false,false,false,false\r\n#default,_result,,,\r\n"
              b",result,table,_field,_value\r\n,,0,v,52\r\n,,0,w,260\r\n\r\n")
FLUX_PARTS = (b"#datatype,string,long,dateTime:RFC3339,string,long\r\n#group,false,false,false,false,false\r\n"
              b"#default,_result,,,,\r\n,result,table,_time,_field,_value\r\n,,0,2026-11-16T19:00:00Z,v,5\r\n"
              b",,0,2026-11-17T00:00:00Z,v,24\r\n,,0,2026-11-16T19:00:00Z,w,25\r\n\r\n")
FLUX_SERIES = (b"#datatype,string,long,long\r\n#group,false,false,false\r\n#default,_result,,\r\n"
               b",result,table,_measurement\r\n,,0,5\r\n\r\n")
FLUX_FIRST = (b"#datatype,string,long,dateTime:RFC3339\r\n#group,false,false,false\r\n#default,_result,,\r\n"
              b",result,table,_time\r\n,,0,2026-11-16T19:33:42Z\r\n\r\n")
INFLUXQL_COUNT = (b'{"results":[{"statement_id":0,"series":[{"name":"power","columns":["time","count_v","count_w"],'
                  b'"values":[[1794787200000000000,5,25],[1794873600000000000,24,null]]}]}]}\n')
INFLUXQL_SERIES = (b'{"results":[{"statement_id":0,"series":[{"columns":["key"],"values":[["power,meter=m0"],'
                   b'["power,meter=m1"]]}]}]}\n')
NOTHING = b'{"results":[{"statement_id":0}]}\n'
FIRST, SECOND = parse_time("2026-11-16T19:00:00Z"), parse_time("2026-11-17T00:00:00Z")
Read = Callable[[bytes], Any]
#: (what reads it, an answer, what it says).
ANSWERS: list[tuple[Read, bytes, Any]] = [
    (FLUX.read_count, FLUX_COUNT, {0: PointCount(260, 312)}),
    (FLUX.read_count, FLUX_PARTS, {FIRST: PointCount(25, 30), SECOND: PointCount(24, 24)}),
    (FLUX.read_count, b"\r\n", {}),
    (FLUX.read_series, FLUX_SERIES, 5),
    (FLUX.read_series, b"\r\n", 0),
    (FLUX.read_first_time, FLUX_FIRST, parse_time("2026-11-16T19:33:42Z")),
    (FLUX.read_first_time, b"\r\n", None),
    (INFLUXQL.read_count, INFLUXQL_COUNT, {1794787200000000000: PointCount(25, 25, False),
                                           1794873600000000000: PointCount(24, 24, False)}),
    (INFLUXQL.read_count, NOTHING, {}),
    (INFLUXQL.read_count, INFLUXQL_COUNT.replace(b"5,25", b"25,25").replace(b",[1794873600000000000,24,null]", b""),
     {1794787200000000000: PointCount(25, 25, True)}),
    (INFLUXQL.read_series, INFLUXQL_SERIES, 2),
    (INFLUXQL.read_series, NOTHING, 0),
    (SQL.read_count, b'[{"part":0,"points":17}]', {0: PointCount(17, 17)}),
    (SQL.read_count, b'[{"part":0,"points":0}]', {}),
]


@pytest.mark.parametrize(("read", "answer", "found"), ANSWERS)
def test_what_servers_answer_is_understood_and_never_by_halves(read: Read, answer: bytes, found: object) -> None:
    assert read(answer) == found
    for end in range(len(answer)):
        try:
            part = read(answer[:end])
        except QueryError:
            continue
        assert part == found, end  # without the last line break


@pytest.mark.parametrize("dialect", [FLUX, INFLUXQL])
def test_an_error_is_an_error(dialect: Dialect) -> None:
    body = b'{"results":[{"statement_id":0,"error":"timeout"}]}\n' if dialect is INFLUXQL else \
        b"#datatype,string,string\r\n#group,true,true\r\n#default,,\r\n,error,reference\r\n,deadline exceeded,\r\n\r\n"
    for read in (dialect.read_count, dialect.read_series):
        with pytest.raises(QueryError):
            read(body)


@pytest.mark.parametrize("dialect", [InfluxqlDialect("db", custom=True), FluxDialect("b", custom=True),
                                     JsonDialect("db", "sql", custom=True)])
def test_the_points_of_a_custom_query_are_not_counted(dialect: Dialect) -> None:
    assert dialect.count("m", WINDOW) is dialect.series("m", WINDOW) is dialect.first_time("m", WINDOW) is None


@given(st.dictionaries(st.integers(MIN_TIME, -MIN_TIME), st.integers(1, 9), max_size=20), st.integers(1, 10**18))
def test_wider_windows_have_all_points(counts: dict[int, int], width: int) -> None:
    found = merged({start: PointCount(count, count) for start, count in counts.items()}, width)
    assert sum(one.points for one in found.values()) == sum(counts.values())
    assert all(start % width == 0 for start in found)
