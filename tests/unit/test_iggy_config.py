"""`[iggy]` and `[iggy.tls]`: what is allowed, and what is warned of."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.config.iggy_checks import iggy_problems, iggy_warnings
from pipeline.config.iggy_schema import IggyConfig, is_loopback


def iggy(**options: Any) -> IggyConfig:
    """`[iggy]` with these options."""
    return msgspec.convert(options, IggyConfig)


def problems(**options: Any) -> list[str]:
    """What the check of `[iggy]` says."""
    return iggy_problems(iggy(**options), lambda key: True)


@pytest.mark.parametrize(("options", "key"), [
    ({"address": "a:1", "addresses": ["b:1"]}, "iggy.addresses"),
    ({"addresses": ["a:1", "b"]}, "iggy.addresses[1]"),
    ({"addresses": ["a:1", "b:1", "A:1"]}, "iggy.addresses[2]"),
    ({"token": "t", "token_file": "FILE"}, "iggy.token_file"),
    ({"token": "t", "username": "u"}, "iggy.username"),
    ({"token": "t", "password": "p"}, "iggy.password"),
    ({"password": "p", "password_file": "FILE"}, "iggy.password_file"),
    ({"token": "t" * 256}, "iggy.token"), ({"password": "pass\n"}, "iggy.password"), ({"token": " t"}, "iggy.token"),
    ({"token_file": "/nowhere"}, "iggy.token_file"), ({"password_file": "FOLDER"}, "iggy.password_file"),
    ({"token_file": "EMPTY"}, "iggy.token_file"), ({"token_file": "LONG"}, "iggy.token_file"),
    ({"token_file": "OPEN"}, "iggy.token_file"),
    ({"tls": {"ca_file": "CA"}}, "iggy.tls.ca_file"), ({"tls": {"domain": "a"}}, "iggy.tls.domain"),
    ({"tls": {"validate_certificate": False}}, "iggy.tls.validate_certificate"),
    ({"tls": {"enabled": True, "ca_file": "/nowhere"}}, "iggy.tls.ca_file"),
    ({"tls": {"enabled": True, "ca_file": "FILE"}}, "iggy.tls.ca_file"),
    ({"transport": "quic", "tls": {"ca_file": "FILE"}}, "iggy.tls.ca_file"),
    ({"tls": {"enabled": True, "domain": "a:8090"}}, "iggy.tls.domain"),
    ({"tls": {"enabled": True, "domain": "https://a"}}, "iggy.tls.domain"),
])
def test_contradictions_and_unusable_files_are_named(options: dict[str, Any], key: str, tmp_path: Path) -> None:
    for name, content, mode in (("FILE", "secret-text", 0o600), ("EMPTY", " \n", 0o600), ("LONG", "x" * 300, 0o600),
                                ("OPEN", "secret-text", 0o644)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    (tmp_path / "FOLDER").mkdir()
    text = msgspec.json.encode(options).decode()
    for name in ("FILE", "EMPTY", "LONG", "OPEN", "FOLDER"):
        text = text.replace(f'"{name}"', f'"{tmp_path / name}"')
    found = problems(**msgspec.json.decode(text))
    assert [problem.partition(": ")[0] for problem in found] == [key]
    assert "secret-text" not in found[0]


@pytest.mark.parametrize("options", [
    {}, {"address": "iggy:8090"}, {"addresses": ["a:1", "[::1]:1"]}, {"token": "t"}, {"password_file": "FILE"},
    {"username": "u", "password": "p"}, {"transport": "quic", "tls": {"validate_certificate": False}},
    {"tls": {"enabled": True, "domain": "iggy.example.org"}}, {"tls": {"enabled": True, "domain": "::1"}},
])
def test_what_is_allowed(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("secret-text\n")
    path.chmod(0o600)
    assert problems(**{key: str(path) if value == "FILE" else value for key, value in options.items()}) == []


@pytest.mark.parametrize(("options", "keys"), [
    ({}, []), ({"address": "localhost:8090"}, []), ({"address": "[::1]:1"}, []), ({"address": "127.8.9.1:1"}, []),
    ({"address": "iggy:8090"}, ["iggy.password", "iggy.tls"]),
    ({"address": "iggy:8090", "password": "p"}, ["iggy.tls"]),
    ({"address": "iggy:8090", "token": "t"}, ["iggy.tls"]),
    ({"addresses": ["127.0.0.1:1", "10.1.2.3:1"], "username": "u"}, ["iggy.tls"]),
    ({"address": "iggy:8090", "token": "t", "tls": {"enabled": True}}, []),
    ({"address": "iggy:8090", "tls": {"enabled": True}}, ["iggy.password"]),
    ({"address": "iggy:8080", "transport": "quic", "token": "t"}, []),
    ({"tls": {"enabled": True, "validate_certificate": False}}, ["iggy.tls.validate_certificate"]),
])
def test_what_others_in_the_network_could_use_is_warned_of(options: dict[str, Any], keys: list[str]) -> None:
    assert [warning.partition(": ")[0] for warning in iggy_warnings(iggy(**options))] == keys


def test_the_port_of_the_default_address_is_that_of_the_transport() -> None:
    assert [iggy(transport=transport).servers() for transport in ("tcp", "quic", "websocket")] == [
        ("127.0.0.1:8090",), ("127.0.0.1:8080",), ("127.0.0.1:8092",)]
    assert iggy(addresses=["b:1", "a:2"], transport="quic").servers() == ("b:1", "a:2")


def test_an_address_of_another_machine_is_never_taken_for_a_local_one() -> None:
    assert not any(map(is_loopback, ("127.0.0.1.example.org:1", "iggy:1", "128.0.0.1:1", "[::2]:1", "0.0.0.0:1",
                                     "localhost.example.org:1", "[::ffff:10.0.0.1]:1")))
    assert is_loopback("[::ffff:127.0.0.1]:1")
