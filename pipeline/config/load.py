"""Reads a configuration file: TOML into `pipeline.config.schema`, every mistake found and named at once."""

import os
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.config.checks import Used, config_problems
from pipeline.config.schema import Config, InfluxConfig
from pipeline.config.values import Reading
from pipeline.errors import ConfigError

#: Path that means standard input.
STANDARD_INPUT: Final = "-"
#: Largest configuration, bytes: what is larger is something else, such as data.
MAX_BYTES: Final = 10_000_000

#: Keys that commands which write no points have no use for: `read_config(unused=...)`.
DATABASE: Final = tuple(f"influxdb.{name}" for name in InfluxConfig.__struct_encode_fields__
                        if name not in ("precision", "gzip"))
#: Keys of a source's connection that say nothing of which state is its own.
SOURCE_CONNECTION: Final = tuple(f"sources.{name}" for name in DATABASE if name not in
                                 ("influxdb.database", "influxdb.bucket", "influxdb.retention_policy"))


#: What is checked of a configuration by code above this package: a line for each mistake. `Used` is as in `checks`.
Check = Callable[[Config, Used], list[str]]


def read_config(path: str, environ: Mapping[str, str] | None = None, options: Mapping[str, object] | None = None,
                sources: Mapping[str, object] | None = None, unused: Collection[str] = (),
                also: Check = lambda config, used: []) -> Config:
    """The configuration in the file at `path` ("-": standard input), with variables replaced from `environ`.

    Where they are not None, `options` take the place of what is in `[pipeline]`, and `sources` in each `[[sources]]`.
    `unused` are tables and keys, such as "dead_letters" and "influxdb.token", that the command has no use for: their
    files are not looked at, and their variables may be unset. `also` checks what this package cannot. Raises
    ConfigError with every mistake: file, key, what is allowed.
    """
    name = "standard input" if path == STANDARD_INPUT else path
    try:
        tables = _parse(_read(path))
        _override(tables, options or {}, sources or {})
        reading = Reading(os.environ if environ is None else environ, _folder(path), unused)
    except OSError as error:
        raise ConfigError(name, [f"cannot be read: {error.strerror}; give a file with -c FILE"]) from None
    except _NoConfiguration as error:
        raise ConfigError(name, [str(error)]) from None
    values = reading.value(tables, Config, "")
    problems = reading.problems
    if not problems:
        config = msgspec.convert(values, Config, strict=True)
        found = config_problems(config, reading.is_used) + also(config, reading.is_used)
        problems = [problem for problem in found if not reading.depends_on_unset(problem)]
        if not problems:
            return config
    raise ConfigError(name, [reading.redacted(problem) for problem in problems])


class _NoConfiguration(ValueError):
    """The bytes are no TOML. The text says why, and nothing of what they are."""


def _read(path: str) -> bytes:
    """Raises OSError and _NoConfiguration."""
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise _NoConfiguration("is closed; give a file with -c FILE")
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _NoConfiguration(f"is larger than {MAX_BYTES:,} bytes; give the configuration with -c FILE")
    return content


def _folder(path: str) -> str:
    """The folder that relative paths in the configuration are relative to. Raises OSError."""
    return os.path.dirname(os.path.abspath(path)) if os.path.isfile(path) else os.getcwd()


def _parse(content: bytes) -> dict[str, Any]:
    """Raises _NoConfiguration."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _NoConfiguration("is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise _NoConfiguration(f"is not valid TOML: {error}") from None
    except RecursionError:
        raise _NoConfiguration("is not valid TOML: nested too deep") from None
    except ValueError:  # an integer of thousands of digits
        raise _NoConfiguration("is not valid TOML: a number is too long") from None


def _override(tables: dict[str, Any], options: Mapping[str, object], sources: Mapping[str, object]) -> None:
    """Puts what a command was given in the place of what the file has."""
    given = {name: value for name, value in options.items() if value is not None}
    if given and isinstance(tables.setdefault("pipeline", {}), dict):
        tables["pipeline"].update(given)
    given = {name: value for name, value in sources.items() if value is not None}
    for source in tables.get("sources", []) if given and isinstance(tables.get("sources"), list) else []:
        if isinstance(source, dict):
            source.update(given)
