"""A record is one line, whatever is in it, and holds no secret; rejects don't fill the log."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import Config, InfluxConfig, TopicConfig
from pipeline.config.secrets import header_problems, secret_forms, secrets_of
from pipeline.log_formats import LineFormatter
from pipeline.logs import RepeatFilter, clean, hide, setup_logging
from pipeline.reject_log import MAX_KINDS, RejectLog
from tests.support.secrets import check_nothing_secret_was_printed


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the logger "test" writes."""
    written = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logger = setup_logging("test", "info")
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    logger.setLevel(logging.NOTSET)


@given(st.text())
def test_a_message_is_one_visible_line(text: str) -> None:
    record = logging.LogRecord("encode-0", logging.WARNING, "", 0, "%s", (text,), None)
    line = LineFormatter().format(record)
    assert line.isprintable()


@pytest.mark.parametrize(("text", "line"), [
    ("a\nb", r"a\nb"), ("\x1b[2Jgone", r"\x1b[2Jgone"), ("\u202eevil", r"\u202eevil"),
    ("a\x85b\u2028c", r"a\x85b\u2028c"), ("\x9b31m", r"\x9b31m"),
    ("50 °C, 温度", "50 °C, 温度"), ("\ud800", r"\ud800"), ("\U000e0041", r"\U000e0041")])
def test_what_is_not_visible_is_an_escape(text: str, line: str) -> None:
    assert LineFormatter().clean(text) == line


def test_a_long_message_is_cut() -> None:
    assert len(LineFormatter().clean("x" * 10_000_000)) == 4_000


def test_no_line_of_a_traceback_can_be_taken_for_a_record(log: io.StringIO) -> None:
    try:
        raise ValueError("bad\n2026-01-01T00:00:00.000Z INFO    write-0: all is well\x1b[0m")
    except ValueError:
        logging.getLogger("test").exception("failed")
    first, *others = log.getvalue().splitlines()
    assert first.endswith("test: failed")
    assert others
    assert all(line.startswith("  | ") and line.isprintable() for line in others)


def test_secrets_are_replaced_in_every_form(log: io.StringIO) -> None:
    token = "s3cret/+=token"
    config = Config(topics=(TopicConfig(stream="iggy", topic="t"),), iggy=IggyConfig(password="iggy"),
                    influxdb=InfluxConfig(token=token, username="me", password="pass wörd", bucket="b",
                                          proxy="http://user:proxy%20pass@proxy:1", headers={
                                              "Authorization": "Bearer abcdefgh", "X-Team": "telemetry"}))
    hide(secrets_of(config))
    logger = logging.getLogger("test")
    for text in (f"header value: {token!r}", "?token=s3cret%2F%2B%3Dtoken", "Basic bWU6cGFzcyB3w7ZyZA==",
                 "http://user:proxy%20pass@proxy:1 is dead", "'Bearer abcdefgh'", "abcdefgh"):
        logger.info("%s", text)
    logger.info("iggy telemetry")
    written = log.getvalue()
    for secret in (token, "s3cret", "cGFzcyB3w7ZyZA", "proxy%20pass", "abcdefgh"):
        assert secret not in written
    assert "iggy telemetry" in written
    assert clean(f"a{token}b") == "a***b"


def test_the_token_of_a_file_is_a_secret_once_it_was_read(log: io.StringIO) -> None:
    hide(secret_forms("another-token"))
    logging.getLogger("test").warning("InvalidHeader: 'Token another-token'")
    assert "another-token" not in log.getvalue()


@pytest.mark.parametrize(("option", "value"), [
    ("token", "abc\ndef-secret"), ("token", "secret\n"), ("token", " secret"), ("token", "sec\x00ret"),
    ("token", "sécret"), ("username", "us\ner"), ("password", "secret\r\nX-Evil: 1"), ("username", "a:b"),
    ("headers", {"X-A": "secret\r\nB: c"}), ("headers", {"X A": "secret"}), ("headers", {"X-A\n": "secret"}),
    ("url", "http://host:8086/\nsecret"), ("url", "http://ho st"), ("urls", ("http://a\x7fb",)),
    ("proxy", "http://proxy:1\r\n")])
def test_values_that_no_request_can_hold_are_found_at_the_start(option: str, value: object) -> None:
    (problem,) = header_problems(InfluxConfig(**{option: value}), "influxdb")  # type: ignore[arg-type]
    assert problem.startswith(f"influxdb.{option}")
    assert "secret" not in problem
    assert problem.isprintable()


def test_values_that_requests_can_hold_are_left_alone() -> None:
    assert header_problems(InfluxConfig(
        token="abc==", username="jürgen", password="pass wörd: ☃", url="http://[::1]:8086/a%20b",
        headers={"X-A": "a, b", "X-Empty": ""}, proxy="http://u:p@proxy:3128"), "influxdb") == []


def test_a_text_is_muffled_and_so_are_many_different_ones() -> None:
    muffler = RepeatFilter(10.0)
    said = [text for number in range(1_000) if muffler.allows(text := f"request {number} failed", number / 100)]
    assert len(said) == 5
    assert muffler.allows("request 0 failed", 20.0)


def test_rejects_are_told_once_for_each_kind_and_then_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    log = RejectLog(logging.getLogger("test-rejects"))
    for number in range(36_000):  # ten a second for an hour
        log.add("s/t", f"partition 0 offset {number}", "bad_field" if number % 2 else "not_json", "v: 1.5", number / 10)
        log.summarize(number / 10)
    log.summarize(3_600.0, everything=True)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= 2 * 62
    assert lines[0] == "rejected s/t partition 0 offset 0: not_json: v: 1.5"
    assert "more messages of s/t in 60 s: not_json; the last one: partition 0 offset" in lines[2]
    assert sum(int(line.split()[1]) if line.split()[1].isdigit() else 1 for line in lines) == 36_000


def test_kinds_of_rejects_without_end_are_told_as_one(caplog: pytest.LogCaptureFixture) -> None:
    log = RejectLog(logging.getLogger("test-rejects"))
    for number in range(10_000):
        log.add("s/t", f"offset {number}", f"reason {number}", "x" * 10_000, 0.0)
    assert len(caplog.records) == MAX_KINDS + 1
    assert max(len(record.getMessage()) for record in caplog.records) < 1_000


def test_a_kind_that_was_silent_for_a_minute_is_told_at_once_again(caplog: pytest.LogCaptureFixture) -> None:
    log = RejectLog(logging.getLogger("test-rejects"))
    for now in (0.0, 100.0, 1_000.0):
        log.add("s/t", "offset 1", "not_json", "x", now)
        log.summarize(now + 70)
    assert [record.getMessage() for record in caplog.records] == ["rejected s/t offset 1: not_json: x"] * 3


def test_a_secret_that_a_test_prints_is_found(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-a-file\n")
    (tmp_path / "pipeline.toml").write_text(
        f'[influxdb]\ntoken = "of-a-config"\n[sources.influxdb]\ntoken_file = "{tmp_path / "token"}"\n'
        '[influxdb.headers]\nAuthorization = "Bearer of-a-header"')
    check_nothing_secret_was_printed(tmp_path, ["all is well"])
    for secret in ("of-a-config", "of-a-file", "Bearer of-a-header"):
        with pytest.raises(AssertionError):
            check_nothing_secret_was_printed(tmp_path, [f"header: {secret}"])
    (tmp_path / "pipeline.log").write_text("Token of-a-config")
    with pytest.raises(AssertionError):
        check_nothing_secret_was_printed(tmp_path, [])
    (tmp_path / "pipeline.log").unlink()
