"""Finds secrets in what a test has printed: every test is checked, see `conftest.py`."""

import contextlib
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

#: Too short, or too ordinary, to be told from other words.
MIN_CHARACTERS = 6
_KEYS = ("token", "password")


class Printed:
    """What the processes have printed that a test has run to their ends."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def keep(self, *outputs: str | bytes | None) -> None:
        """Takes in standard output and error of a process."""
        self.texts += [output.decode("utf-8", "replace") if isinstance(output, bytes) else output
                       for output in outputs if output]


@contextlib.contextmanager
def kept_output() -> Iterator[Printed]:
    """Keeps what `subprocess.run` has captured."""
    printed, patch, run = Printed(), pytest.MonkeyPatch(), subprocess.run

    def keeping(*arguments: Any, **options: Any) -> "subprocess.CompletedProcess[Any]":
        done = run(*arguments, **options)
        printed.keep(done.stdout, done.stderr)
        return done

    with patch.context() as patched:
        patched.setattr(subprocess, "run", keeping)
        yield printed


def secrets_in(folder: Path) -> set[str]:
    """Tokens and passwords of all configurations in a folder, and of the token files that they name."""
    found: set[str] = set()
    for path in folder.rglob("*.toml"):
        with contextlib.suppress(tomllib.TOMLDecodeError, UnicodeDecodeError, OSError):
            found.update(_secrets(tomllib.loads(path.read_text())))
    return {secret for text in found for secret in (text, *text.split("\n")) if len(secret) >= MIN_CHARACTERS
            and "$" not in secret}


def _secrets(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _secrets(item, name)
            if key == "headers" and name.lower() == "authorization":
                yield str(item)
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item, key)
    elif isinstance(value, str) and key in _KEYS:
        yield value
    elif isinstance(value, str) and key == "token_file":
        with contextlib.suppress(OSError, UnicodeDecodeError):
            yield Path(value).read_text().strip()


def check_nothing_secret_was_printed(folder: Path, texts: list[str]) -> None:
    """Fails where a secret of the configurations in `folder` is in one of its logs, or in `texts`."""
    secrets = secrets_in(folder)
    if not secrets:
        return
    for log in folder.rglob("*.log"):
        texts = [*texts, log.read_text(errors="replace")]
    for text in texts:
        for secret in secrets:
            at = text.find(secret)
            assert at < 0, f"a secret of {len(secret)} characters was printed behind: {text[max(0, at - 200):at]}"
