"""What answers to a write mean: the table in tests/data/answers.toml."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.influxdb.answers import (
    Accepted,
    BadLines,
    OperatorNeeded,
    Retry,
    TooLarge,
    UnlocatedBadLines,
)
from stages.influxdb.body import listed_lines, quoted_lines
from stages.influxdb.classify import classify
from stages.influxdb.flavour import detect
from stages.influxdb.retry_after import retry_after

NOW = 1_700_000_000.0
MEANINGS = {"written": Accepted, "bad_lines": BadLines, "bad_somewhere": UnlocatedBadLines, "too_large": TooLarge,
            "paused": OperatorNeeded, "again": Retry}
CASES = tomllib.loads((Path(__file__).parents[1] / "data" / "answers.toml").read_text())["answers"]


@pytest.mark.parametrize("case", CASES, ids=[f"{case['status']} {case['server']}: {case['case']}" for case in CASES])
def test_an_answer_means_what_the_table_says(case: dict[str, Any]) -> None:
    body = bytes.fromhex(case["body_hex"]) if "body_hex" in case else case["body"].encode()
    answer = classify(case["status"], case.get("headers", {}), body, NOW, case.get("api"))
    assert type(answer) is MEANINGS[case["meaning"]]
    for name in ("rest_stored", "reason", "dropped", "after", "suspect", "about_lines", "first", "line"):
        if name in case:
            assert getattr(answer, name) == case[name], name


@given(st.integers(100, 599), st.binary(max_size=200), st.text(max_size=20))
def test_any_answer_has_a_meaning(status: int, body: bytes, wait: str) -> None:
    answer = classify(status, {"retry-after": wait, "date": wait}, body, NOW)
    assert isinstance(answer, tuple(MEANINGS.values()))
    assert isinstance(answer, Accepted) == (status == 204)


@pytest.mark.parametrize(("value", "seconds"), [
    ("0", 0.0), ("1.5", 1.5), ("-3", 0.0), ("Tue, 14 Nov 2023 22:13:10 GMT", 0.0), ("", None), (None, None),
    ("nan", None), ("tomorrow", None), ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0)])
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_quoted_lines_are_found_by_their_text_whatever_they_hold() -> None:
    lines = [b"good f=1 1", b"it's f=zz 2", b"good f=1 1 f", b'm s="a\nb" x', b" \tlead f=zz", b'm s="dropped=9" z']
    words = ("partial write: unable to parse 'it's f=zz 2': invalid boolean\nunable to parse 'm s=\"a\nb\" x': bad "
             "timestamp\nunable to parse 'lead f=zz': strconv.ParseInt: parsing \"9\": value out of range\n"
             "unable to parse 'm s=\"dropped=9\" z': bad timestamp dropped=0")
    assert quoted_lines(lines, words) == {1: "invalid boolean", 3: "bad timestamp",
                                         4: 'strconv.ParseInt: parsing "9": value out of range', 5: "bad timestamp"}


def test_equal_lines_are_each_found() -> None:
    lines = [b"a f=zz", b"b f=1", b"a f=zz"]
    assert quoted_lines(lines, "unable to parse 'a f=zz': x\nunable to parse 'a f=zz': x") == {0: "x", 2: "x"}
    assert quoted_lines(lines, "unable to parse 'b f=1': x\nunable to parse 'b f=1': x") is None


@pytest.mark.parametrize("bad", [
    b"m s=\"unable to parse 'good f=1': missing fields", b"m s=\"\nunable to parse 'good f=1': z\" x",
    b"good f=1': x", b"m,t=partial\\ write:\\ unable\\ to\\ parse f=zz", b"m s=\"': \",b=zz",
    b"unable\\ to\\ parse f=zz", b"m s=\"a\nunable to parse 'good f=1': \" zz"])
@pytest.mark.parametrize("partial", [True, False])
def test_a_line_that_holds_a_quote_never_makes_another_one_bad(bad: bytes, partial: bool) -> None:
    def said(line: bytes) -> str:
        words = f"unable to parse '{line.decode()}': invalid boolean"
        return f"partial write: {words} dropped=0" if partial else words

    for lines in ([b"good f=1", bad], [bad, b"good f=1"], [b"good f=1", b"other f=2", bad, b"good f=1"]):
        found = quoted_lines(lines, said(bad))
        assert found is None or found == {lines.index(bad): "invalid boolean"}
    assert quoted_lines([bad], said(bad)) == {0: "invalid boolean"}


def test_an_answer_that_quotes_a_line_we_did_not_send_finds_none() -> None:
    assert quoted_lines([b"a f=1", b"b f=2"], "unable to parse 'a f=1': x\nunable to parse 'c f=3': y") is None
    assert quoted_lines([b"a f=1"], "nothing is quoted") is None
    assert quoted_lines([b"a f=1"], "unable to parse '\x1f\ufffd\x08': missing tag value") is None
    assert quoted_lines([b"a f=1", b"b f=2"], "unable to parse 'a f=1") is None


def test_listed_lines_are_found_by_number_or_else_by_text() -> None:
    lines = [b"a f=1", b"b f=2", b'c f="x"', b"d f=4"]
    listed = [(2, "b f", "cut"), (9, "a f=1", "number wrong"), (3, "c f=x", "printed anew"), (4, "a f=1", "text wrong")]
    assert listed_lines(lines, listed) == {1: "cut", 0: "number wrong", 2: "printed anew", 3: "text wrong"}
    assert listed_lines(lines, [(9, "e f=5", "nowhere")]) is None


@pytest.mark.parametrize(("health", "ping", "product", "api"), [
    ((200, b'{"name":"influxdb","status":"pass","version":"v2.7.12"}'),
     (204, {"x-influxdb-build": "OSS", "x-influxdb-version": "v2.7.12"}, b""), "InfluxDB OSS", "v2"),
    ((404, b"404 page not found"), (204, {"x-influxdb-version": "1.6.7~rc0"}, b""), "InfluxDB OSS", "v1"),
    ((200, b"OK"), (200, {"x-none": ""}, b'{"version":"3.0.1","revision":"a","process_id":"b"}'), "InfluxDB", "v3"),
    ((200, b"OK"), (200, {"x-influxdb-build": "Core", "x-influxdb-version": "3.9.6"},
                    b'{"product_name":"InfluxDB 3 Core","version":"3.9.6"}'), "InfluxDB Core", "v3"),
    ((401, b""), (401, {"cluster-uuid": "a1cce656"}, b'{"error": "the request was not authenticated"}'),
     "InfluxDB 3, which hides its version without a valid token", "v3"),
    ((200, b"OK"), (204, {}, b""), "VictoriaMetrics or compatible", None),
    ((404, b""), (404, {}, b""), "a server of unknown kind", None)])
def test_a_server_is_recognised(health: tuple[int, bytes], ping: tuple[int, dict[str, str], bytes], product: str,
                                api: str | None) -> None:
    flavour = detect(health, ping)
    assert (flavour.product, flavour.api) == (product, api)
