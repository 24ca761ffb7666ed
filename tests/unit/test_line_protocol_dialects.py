"""Lines for servers that read them in another way than InfluxDB 1 and 2."""

import pytest

from stages.influxdb.dialect import ColumnCheck, Dialect, adapt


@pytest.mark.parametrize(("line", "expected"), [
    (rb"m,t=c:\dir f=1 5", rb"m,t=c:\\dir f=1 5"),
    (rb"m,t=c:\\dir f=1 5", rb"m,t=c:\\\\dir f=1 5"),
    (rb"a\b\,\ c,t\=\,\ x=a\,\=\ b f\,\=\ g=1 5", rb"a\\b\,\ c,t\=\,\ x=a\,\=\ b f\,\=\ g=1 5"),
    (rb"m,t=a\\,u=b\\\=c f=1 5", rb"m,t=a\\\,u=b\\\\\=c f=1 5"),
    (rb'm f="say \"a\\b\" \n \d" 5', rb'm f="say \"a\\b\" \\n \\d" 5'),
    (b'm f="a\nb\\\\",g="\n" 5', b'm f="a\\\nb\\\\",g="\\\n" 5'),
    (b'm f="a",g="t,u=\\\\" 5', b'm f="a",g="t,u=\\\\" 5'),
    (b'm f="a\\\nb" 5', b'm f="a\\\\\\\nb" 5')])
def test_questdb_reads_every_backslash_as_an_escape(line: bytes, expected: bytes) -> None:
    assert adapt(b"other f=1 1\n" + line + b"\nlast f=1 9\n", "questdb") == (
        b"other f=1 1\n" + expected + b"\nlast f=1 9\n")


def test_victoria_metrics_gets_no_line_break() -> None:
    assert adapt(b'm,t=a\\\\b f="a\nb\\"",g=1 5\nn f="c" 1\n', "victoria_metrics") == (
        b'm,t=a\\\\\\\\b f="a\\\\nb\\"",g=1 5\nn f="c" 1\n')


@pytest.mark.parametrize("dialect", ["influxdb", "influxdb3", "victoria_metrics", "questdb"])
def test_a_body_without_backslashes_stays_as_it_is(dialect: Dialect) -> None:
    body = b'm,t=a f="x",g=1 5\nm f=2i 7\n'
    assert adapt(body, dialect) is body or adapt(body, dialect) == body


@pytest.mark.parametrize("line", [
    b"m,a=1,A=2 f=1 1", b'm,f=1 f="x" 1', b"m f=1,g=2,F=3 1", b"m f=-9223372036854775808i 1", b"m a\\,=1,A\\,=1",
    b'm,\\=a=1 \\=a="1" 1', "m xİ=1,xi=2".encode(), "m É=1,é=2 5".encode()])
def test_what_questdb_would_lose_without_a_word_is_found(line: bytes) -> None:
    columns = ColumnCheck()
    assert columns.problem(b"m,a=1 f=1 1") == ""
    assert columns.problem(line).startswith("QuestDB ") and columns.problem(line).startswith("QuestDB ")


@pytest.mark.parametrize("line", [
    b"m,a=1 f=1 1", b'm f="=-9223372036854775808i" 1', b"m f=-9223372036854775807i 1", b'm a="b=1,a=2 a=3" 1',
    b'm,a=x\\ a\\=1 f=1 1', "m I=1,ı=2".encode(), "m 𐐀=1,𐐨=2".encode(), b'm a="1\na=2",b=3 1', b"m,a=f=1 1"])
def test_other_lines_are_well(line: bytes) -> None:
    columns = ColumnCheck()
    assert columns.problem(line) == columns.problem(line) == ""
