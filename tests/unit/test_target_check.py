"""How a database is named and reached is checked before anything starts."""

from pathlib import Path

import pytest

from pipeline.commands.config import load_config
from pipeline.errors import ConfigError

TOPICS = '[[topics]]\nstream = "s"\ntopic = "t"\n'


def problems(folder: Path, influxdb: str, rest: str = "") -> list[str]:
    """What is wrong with this `[influxdb]`."""
    path = folder / "pipeline.toml"
    path.write_text(f"{TOPICS}{rest}\n[influxdb]\n{influxdb}")
    try:
        load_config(str(path), {})
    except ConfigError as error:
        return error.problems
    return []


@pytest.mark.parametrize(("influxdb", "key"), [
    ('version = "v2"\nbucket = "b"', "influxdb.org:"),
    ('version = "v2"\nbucket = "b"\norg = ""', "influxdb.org:"),
    ('bucket = "b"\norg_id = "my-org"', "influxdb.org_id:"),
    ('bucket = "b"\norg_id = "0123456789abcde"', "influxdb.org_id:"),
    ('bucket = "b"\norg_id = "0123456789abcdefg"', "influxdb.org_id:"),
    ('bucket = "b"\norg_id = "zzzzzzzzzzzzzzzz"', "influxdb.org_id:"),
    ('bucket = "b"\norg_id = "0000000000000000"', "influxdb.org_id:"),
    ('bucket = "b"\norg = "o"\norg_id = "0123456789abcdef"', "influxdb.org_id:"),
    ('bucket = "b"\ntoken = "Token abc"', "influxdb.token:"),
    ('bucket = "b"\ntoken = "bearer abc"', "influxdb.token:"),
    ('bucket = "b"\nproxy = "https://proxy:3128"', "influxdb.proxy:"),
    ('bucket = "b"\nproxy = "socks5://proxy:1080"', "influxdb.proxy:"),
    ('bucket = "b"\nheaders = { Content-Length = "5" }', "influxdb.headers.Content-Length:"),
    ('bucket = "b"\nheaders = { content-encoding = "br" }', "influxdb.headers.content-encoding:"),
    ('bucket = "b"\nurl = "http://127.0.0.1:8090"', "influxdb.url:"),
    ('bucket = "b"\nurl = "http://localhost:8090/"', "influxdb.url:"),
    ('bucket = "b"\nurls = ["http://[::1]:8090"]', "influxdb.urls[0]:")])
def test_a_mistake_is_named(tmp_path: Path, influxdb: str, key: str) -> None:
    (found,) = problems(tmp_path, influxdb)
    assert found.startswith(key)
    assert "abc" not in found


@pytest.mark.parametrize("influxdb", [
    'version = "v2"\nbucket = "b"\norg = "o"', 'version = "v2"\nbucket = "b"\norg_id = "0123456789ABCDEF"',
    'bucket = "b"', 'bucket = "b"\nproxy = "http://user:pass@proxy:3128"', 'bucket = "b"\nproxy = "proxy:3128"',
    'bucket = "b"\ntoken = "tokenbearer"', 'bucket = "b"\nurl = "http://other:8090"',
    'bucket = "b"\nurl = "http://127.0.0.1:8086"', 'database = "d"\nversion = "v1"', 'database = "d"\nversion = "v3"'])
def test_what_is_right_is_taken(tmp_path: Path, influxdb: str) -> None:
    assert problems(tmp_path, influxdb) == []


def test_a_ca_file_is_looked_into(tmp_path: Path) -> None:
    for name, content in (("empty", ""), ("text", "no certificate"), ("der", "\x00\x01\x02")):
        (tmp_path / name).write_text(content)
        (found,) = problems(tmp_path, f'bucket = "b"\nca_file = "{tmp_path / name}"')
        assert "ca_file" in found and "PEM" in found
