"""The login at Iggy, from the configuration and from files that change."""

import logging
from pathlib import Path

import pytest

from pipeline.config.iggy_schema import IggyConfig
from pipeline.iggy.credentials import Credentials, SecretFileProblem
from pipeline.logs import clean, setup_logging


def test_a_file_is_read_anew_for_each_login(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first-token\n")
    credentials = Credentials(IggyConfig(token_file=str(path)))
    first = credentials.login()
    assert (first.secret, first.is_token, first) == ("first-token", True, credentials.login())
    path.write_text("second-token")
    assert credentials.login().secret == "second-token"
    assert credentials.login() != first
    path.unlink()
    with pytest.raises(SecretFileProblem, match=f"iggy.token_file {path} cannot be read: No such file"):
        credentials.login()


@pytest.mark.parametrize("content", [b"", b" \n", b"x" * 256, b"\xff\xfe secret"])
def test_a_file_without_a_usable_secret_is_named_and_not_quoted(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(SecretFileProblem) as problem:
        Credentials(IggyConfig(password_file=str(path))).login()
    assert str(path) in str(problem.value) and "secret" not in str(problem.value)


def test_what_is_read_from_a_file_is_not_logged(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("pass-of-file")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        setup_logging("test", "info")
        Credentials(IggyConfig(username="pump", password_file=str(path))).login()
        assert clean("RuntimeError: pass-of-file, cHVtcDpwYXNzLW9mLWZpbGU=") == "RuntimeError: ***, ***"
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_a_refusal_names_the_key_and_the_file() -> None:
    assert "iggy.username and iggy.password" in Credentials(IggyConfig()).login().refused()
    assert "iggy.token:" in Credentials(IggyConfig(token="t")).login().refused()
