"""Logs for terminals, machines and the journal: one record each, whatever is in it, and no secret."""

import io
import json
import logging
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.config import load_config
from pipeline.commands.top import SPARK_WIDTH, growth, sparkline
from pipeline.config.log_schema import LogLevels
from pipeline.config.plan import Plan, level_of
from pipeline.config.schema import Config, PipelineConfig, TopicConfig
from pipeline.errors import ConfigError, PipelineError
from pipeline.exit import print_error
from pipeline.log_formats import ERASE, JournalFormatter, JsonFormatter, LineFormatter, TerminalFormatter, facts
from pipeline.logs import RepeatFilter, formatter_for, setup_logging
from pipeline.supervisor.live_line import RATE_SECONDS, Rate, fitted

SECRET = 's3"cret\\token'


def record(text: str, level: int = logging.WARNING, **about: str | int | None) -> logging.LogRecord:
    made = logging.LogRecord("write-0", level, "", 0, "%s", (text,), None)
    vars(made).update(facts(**about))
    return made


def failed_record() -> logging.LogRecord:
    try:
        raise ValueError(f"bad\n<3>{SECRET}")
    except ValueError:
        return logging.LogRecord("write-0", logging.ERROR, "", 0, "failed", (), sys.exc_info())


@given(st.text(), st.text(), st.integers())
def test_a_record_is_one_json_object(text: str, topic: str, offset: int) -> None:
    about = record(f"{text}{SECRET}", topic=topic, offset=offset, url=SECRET, stream=None)
    line = JsonFormatter([SECRET]).format(about)
    assert line.isprintable() and "\n" not in line
    found = json.loads(line)
    assert (found["level"], found["process"], found["offset"]) == ("warning", "write-0", offset)
    assert SECRET not in (found["message"], found["url"]) and "stream" not in found


def test_what_a_record_is_about_replaces_no_field_of_it() -> None:
    hostile = record("text")
    hostile.facts = {"message": "other", "level": "debug"}
    found = json.loads(JsonFormatter().format(hostile))
    assert (found["message"], found["level"]) == ("text", "warning")


def test_a_traceback_is_a_list_in_json_and_marked_lines_elsewhere() -> None:
    failed = failed_record()
    found = json.loads(JsonFormatter([SECRET]).format(failed))
    assert found["traceback"][0].startswith("Traceback") and SECRET not in json.dumps(found)
    lines = JournalFormatter([SECRET]).format(failed).splitlines()
    assert lines[0] == "<3>write-0: failed" and len(lines) > 3
    assert all(line.startswith("<3>  | ") for line in lines[1:]) and SECRET not in "".join(lines)


@pytest.mark.parametrize(("level", "priority"), [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4),
                                                 (logging.ERROR, 3), (logging.CRITICAL, 3)])
def test_the_journal_gets_priorities_and_no_time(level: int, priority: int) -> None:
    assert JournalFormatter().format(record("a\n<0>b", level)) == f"<{priority}>write-0: a\\n<0>b"


@given(st.text())
def test_a_line_on_a_terminal_erases_the_live_line_and_nothing_else(text: str) -> None:
    line = TerminalFormatter(colours=False).format(record(text))
    assert line.startswith(ERASE) and line.removeprefix(ERASE).isprintable()


def test_the_format_follows_from_where_the_log_goes(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        about = os.fstat(stream.fileno())
        journal = {"JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}", "TERM": "xterm"}
        assert type(formatter_for("auto", stream, journal, ())) is JournalFormatter
        assert type(formatter_for("text", stream, journal, ())) is LineFormatter
        assert type(formatter_for("json", stream, journal, ())) is JsonFormatter
        # Standard error goes elsewhere, though systemd has started an ancestor.
        assert type(formatter_for("auto", stream, {"JOURNAL_STREAM": "1:2"}, ())) is LineFormatter
        assert type(formatter_for("journal", stream, {}, ())) is JournalFormatter
    assert type(formatter_for("auto", io.StringIO(), journal, ())) is LineFormatter
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal:
        assert type(formatter_for("auto", terminal, {"TERM": "xterm"}, ())) is TerminalFormatter
        assert type(formatter_for("auto", terminal, {"TERM": "dumb"}, ())) is LineFormatter
        coloured, plain = (formatter_for("text", terminal, environ, ()).format(record("x")) for environ in (
            {"TERM": "xterm"}, {"TERM": "xterm", "NO_COLOR": "1"}))
    os.close(master)
    assert "\x1b[33m" in coloured and "\x1b[33m" not in plain


def test_an_error_that_ends_a_command_is_a_record_where_machines_read(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        setup_logging("test", "info", ["s3cret"], "json")
        assert print_error(PipelineError("no topic s3cret\nand more")) == 1
        found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert [(one["level"], one["message"]) for one in found] == [("error", "no topic ***"), ("error", "and more")]
        setup_logging("test", "info", ["s3cret"], "journal")
        print_error(PipelineError("no topic s3cret"))
        assert capsys.readouterr().err == "<3>pipeline: no topic ***\n"
        setup_logging("test", "info", ["s3cret"])
        print_error(PipelineError("no topic s3cret"))
        assert capsys.readouterr().err == "pipeline: error: no topic ***\n"
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.getLogger("test").setLevel(logging.NOTSET)


def test_repeated_lines_are_counted() -> None:
    repeats = RepeatFilter(10.0)
    assert repeats.allows("down", 0.0) and repeats.times == ""
    assert not any(repeats.allows("down", float(second)) for second in range(1, 10))
    assert repeats.allows("down", 10.0) and repeats.times == " (and 9 times more since the last such line)"
    assert repeats.allows("down", 20.0) and repeats.times == ""
    for number in range(10_000):
        repeats.allows(str(number), 21.0)
    assert len(repeats._held) <= RepeatFilter.MAX_COUNTED


def test_each_stage_has_its_level() -> None:
    pipeline = PipelineConfig(log_level="warning", log_levels=LogLevels(
        ingest="debug", dead_letter="error", source_coordinator="info", encode="debug"))
    assert {name: level_of(pipeline, name) for name in ("ingest", "ingest-1", "dead-letter", "source-coordinator",
                                                        "coordinator", "encode-edge-7-123", "write-0", "http")} == {
        "ingest": "debug", "ingest-1": "debug", "dead-letter": "error", "source-coordinator": "info",
        "coordinator": "warning", "encode-edge-7-123": "debug", "write-0": "warning", "http": "warning"}
    config = Config(topics=(TopicConfig(stream="s", topic="t"),), pipeline=pipeline)
    assert Plan(config, "", 1, 1).log_level("ingest-2") == "DEBUG"


@pytest.mark.parametrize(("line", "problem"), [
    ('log_format = "xml"', "pipeline.log_format"), ('log_levels = { writer = "info" }', "pipeline.log_levels"),
    ('log_levels = { write = "loud" }', "pipeline.log_levels.write")])
def test_mistakes_are_told_with_the_key(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(f'[influxdb]\nurl = "http://h"\nbucket = "b"\n[[topics]]\nstream = "s"\ntopic = "t"\n'
                    f'[pipeline]\n{line}\n')
    with pytest.raises(ConfigError) as found:
        load_config(str(path))
    assert problem in str(found.value) and ":8" in str(found.value)


@given(st.text(), st.integers(0, 300))
def test_the_live_line_is_one_line(text: str, columns: int) -> None:
    assert len(fitted(text, columns)) <= max(10, columns - 1)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.add(5, 0.0) == 0
    assert [rate.add(5 + 100 * second, float(second)) for second in range(1, 10)] == [100.0] * 9
    assert rate.add(3, 10.0) == 0 and rate.add(203, 12.0) == 100
    for second in range(1_000):
        rate.add(203, 12 + second / 10)
    assert len(rate._totals) <= RATE_SECONDS * 10 + 2


def test_sparklines() -> None:
    assert sparkline([]) == "" and sparkline([0, 0]) == "▁▁" and sparkline([0, 1, 2, 4, 8]) == "▁▂▃▅█"
    assert len(sparkline(list(range(1_000)))) == SPARK_WIDTH
    assert growth([[0, 10], [2, 30], [3, 5]], 1) == [10.0, 5.0]
