"""Reads a configuration file: TOML into `pipeline.config.schema`; every mistake is named, all of them at once."""

import os
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.config.checks import config_problems
from pipeline.config.schema import Config, InfluxConfig
from pipeline.config.values import Reading, Used
from pipeline.errors import ConfigError

#: Path that means standard input.
STANDARD_INPUT: Final = "-"
#: Largest configuration, bytes: a larger file is not a configuration.
MAX_BYTES: Final = 10_000_000

#: Keys that commands which write no points do not use: `read_config(unused=...)`.
DATABASE: Final = tuple(f"influxdb.{name}" for name in InfluxConfig.__struct_encode_fields__
                        if name not in ("precision", "gzip"))
#: Keys of a source's connection that do not identify its state.
SOURCE_CONNECTION: Final = tuple(f"sources.{name}" for name in DATABASE if name not in
                                 ("influxdb.database", "influxdb.bucket", "influxdb.retention_policy"))

#: A check of a configuration by code above this package: a line for each mistake.
Check = Callable[[Config, Used], list[str]]


def read_config(path: str, environ: Mapping[str, str] | None = None, options: Mapping[str, object] | None = None,
                sources: Mapping[str, object] | None = None, unused: Collection[str] = (),
                also: Check = lambda config, used: []) -> Config:
    """The configuration in the file at `path` ("-": standard input), with variables replaced from `environ`.

    Where they are not None, `options` replace what `[pipeline]` has, and `sources` what each `[[sources]]` has.
    `unused` are tables and keys, such as "dead_letters" and "influxdb.token", that the command does not use: their
    files are not read, and their variables may be unset. `also` checks what this package cannot. Raises ConfigError
    with every mistake: file, key, what is allowed.
    """
    name = "standard input" if path == STANDARD_INPUT else path
    try:
        tables = _read_tables(path)
        reading = Reading(os.environ if environ is None else environ, _folder(path), unused)
    except OSError as error:
        raise ConfigError(name, [f"cannot be read: {error.strerror}; give a file with -c FILE"]) from None
    except _NotToml as error:
        raise ConfigError(name, [str(error)]) from None
    _override(tables, options or {}, sources or {})
    values = reading.value(tables, Config, "")
    problems = reading.problems
    if not problems:
        config = msgspec.convert(values, Config, strict=True)
        found = config_problems(config, reading.is_used) + also(config, reading.is_used)
        problems = [problem for problem in found if not reading.depends_on_unset(problem)]
        if not problems:
            return config
    raise ConfigError(name, [reading.redacted(problem) for problem in problems])


class _NotToml(ValueError):
    """The bytes are not TOML. The text has the reason, and nothing of the bytes, which may be secret."""


def _read_tables(path: str) -> dict[str, Any]:
    """Raises OSError and _NotToml."""
    content = _read(path)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _NotToml("is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise _NotToml(f"is not valid TOML: {error}") from None
    except RecursionError:
        raise _NotToml("is not valid TOML: nested too deep") from None
    except ValueError:  # an integer of thousands of digits
        raise _NotToml("is not valid TOML: a number is too long") from None


def _read(path: str) -> bytes:
    """Raises OSError and _NotToml."""
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise _NotToml("is closed; give a file with -c FILE")
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _NotToml(f"is larger than {MAX_BYTES:,} bytes; give the configuration with -c FILE")
    return content


def _folder(path: str) -> str:
    """The folder that relative paths in the configuration are relative to. Raises OSError."""
    return os.path.dirname(os.path.abspath(path)) if os.path.isfile(path) else os.getcwd()


def _override(tables: dict[str, Any], options: Mapping[str, object], sources: Mapping[str, object]) -> None:
    """Replaces what the file has with the options of a command, where they are given. Wrong tables are left alone."""
    given = {name: value for name, value in options.items() if value is not None}
    if given and isinstance(tables.setdefault("pipeline", {}), dict):
        tables["pipeline"].update(given)
    given = {name: value for name, value in sources.items() if value is not None}
    listed = tables.get("sources")
    for source in listed if given and isinstance(listed, list) else []:
        if isinstance(source, dict):
            source.update(given)
