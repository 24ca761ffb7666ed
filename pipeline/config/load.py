"""Reads a configuration: its files, the environment and `--set`, into `pipeline.config.schema`. Every mistake is named,
all of them at once.
"""

import os
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from pipeline.config.checks import config_problems
from pipeline.config.iggy_connection_string import expanded
from pipeline.config.inputs import STANDARD_INPUT as STANDARD_INPUT
from pipeline.config.inputs import ConfigInputs, as_inputs, read_documents
from pipeline.config.merging import Merged, Origin
from pipeline.config.presets import apply_presets
from pipeline.config.schema import Config, InfluxConfig
from pipeline.config.settings import (
    BadSetting,
    apply_settings,
    environment_settings,
    parsed_setting,
    unknown_variables,
)
from pipeline.config.values import MAX_PROBLEMS, Reading, Used, is_path
from pipeline.errors import ConfigError, Problem

#: Keys that commands which write no points do not use: `read_config(unused=...)`.
DATABASE: Final = tuple(f"influxdb.{name}" for name in InfluxConfig.__struct_encode_fields__
                        if name not in ("precision", "gzip"))
#: Keys of a source's connection that do not identify its state.
SOURCE_CONNECTION: Final = tuple(f"sources.{name}" for name in DATABASE if name not in
                                 ("influxdb.database", "influxdb.bucket", "influxdb.retention_policy"))
#: What a mistake says that may not be one, because a file could not be read that may have the missing part.
_MISSING: Final = re.compile(r"\b(required|missing|no effect|only with|at least one|give bucket)\b")

#: A check of a configuration by code above this package: a line for each mistake.
Check = Callable[[Config, Used], list[str]]


def file_keys() -> tuple[str, ...]:
    """The keys that name files, such as "influxdb.token_file": for `unused` where no file has to be there."""
    return tuple(_file_keys(Config, ""))


def _file_keys(expected: Any, key: str) -> Iterator[str]:
    arguments = typing.get_args(expected)
    if typing.get_origin(expected) is tuple:
        yield from _file_keys(arguments[0], key)
    elif isinstance(expected, type) and issubclass(expected, Struct):
        for field in msgspec.structs.fields(expected):
            if field.encode_name != "sinks":
                yield from _file_keys(field.type, f"{key}.{field.encode_name}".lstrip("."))
    elif is_path(expected):
        yield key


class Examined(Struct, frozen=True):
    """What was found in a configuration."""

    #: None if there are problems.
    config: Config | None
    #: Every mistake, in the order of files and lines.
    problems: list[Problem]
    #: Lines about environment variables that are not used.
    warnings: list[str]
    #: The tables of all files together, with the environment and `--set`, as they were before variables were replaced.
    merged: Merged


def read_config(inputs: ConfigInputs | str, environ: Mapping[str, str] | None = None,
                options: Mapping[str, object] | None = None, sources: Mapping[str, object] | None = None,
                unused: Collection[str] = (), also: Check = lambda config, used: []) -> Config:
    """The configuration of these inputs: flags over environment variables over files over defaults.

    `${VAR}` and PIPELINE_ variables are taken from `environ`. Where they are not None, `options` replace what
    `[pipeline]` has, and `sources` what each `[[sources]]` has. `unused` are tables and keys, such as "dead_letters"
    and "influxdb.token", that the command does not use: their files are not read, and their variables may be unset.
    `also` checks what this package cannot. Raises ConfigError with every mistake: file, line, key, what is allowed.

    The same inputs can be read again (`ConfigInputs.can_be_read_again`); configurations compare by value, and
    `pipeline.config.compare` names what differs.
    """
    examined = examine_config(inputs, environ, options, sources, unused, also)
    if examined.config is None:
        raise ConfigError(inputs, examined.problems)
    return examined.config


def examine_config(inputs: ConfigInputs | str, environ: Mapping[str, str] | None = None,
                   options: Mapping[str, object] | None = None, sources: Mapping[str, object] | None = None,
                   unused: Collection[str] = (), also: Check = lambda config, used: []) -> Examined:
    """As `read_config`, but returns the mistakes."""
    inputs = as_inputs(inputs)
    environ = os.environ if environ is None else environ
    folder = _working_folder()
    documents, problems = read_documents(inputs.paths)
    is_whole = all(problem.line for problem in problems) and not any(document.is_broken for document in documents)
    merged = Merged()
    for document in documents:
        merged.add(document)
    problems += merged.problems
    text = "\n".join(document.text for document in documents)
    settings = [setting for setting in environment_settings(environ) if f"${{{setting.place}" not in text]
    problems += apply_settings(merged, settings, folder)
    for given in inputs.settings:
        try:
            problems += apply_settings(merged, [parsed_setting(given)], folder)
        except BadSetting as error:
            problems.append(Problem("--set", 0, "", f"{str(error)}"))
    _override(merged, options or {}, sources or {}, folder)
    problems += apply_presets(merged)
    reading = Reading(environ, lambda key: _folder_of(merged, key, folder), unused)
    for setting in settings:
        reading.hide(setting.place, setting.value)
    for document in documents:
        reading.wrong.update(document.skipped)
        reading.skipped.update(key.rpartition(".")[2].strip("\"'") for key in document.skipped)
    config = None
    if documents:
        config, found = _read(reading, merged, also, is_whole)
        problems += [_located(problem, merged, inputs) for problem in found]
    used = {name for name in environ if f"${{{name}" in text}
    order = {document.name: number for number, document in enumerate(documents)}
    problems = sorted(dict.fromkeys(problems),
                      key=lambda problem: (order.get(problem.place, len(order)), problem.line or 10**9))
    if len(problems) > MAX_PROBLEMS or reading.is_full:
        problems = [*problems[:MAX_PROBLEMS],
                    Problem(str(inputs), 0, "", f"these are the first {MAX_PROBLEMS:,} mistakes")]
    return Examined(None if problems else config, problems, list(unknown_variables(environ, used)), merged)


def _read(reading: Reading, merged: Merged, also: Check, is_whole: bool) -> tuple[Config | None, list[str]]:
    """The configuration with what is right in it, and the mistakes."""
    values = reading.value(merged.tables, Config, "")
    problems = list(reading.problems)
    if reading.is_full:
        return None, [reading.redacted(problem) for problem in problems]
    try:
        config = msgspec.convert(values, Config, strict=True)
    except (msgspec.ValidationError, RecursionError):
        if not problems and not reading.skipped:
            raise
        return None, [reading.redacted(problem) for problem in problems]
    iggy, wrong = expanded(config.iggy)
    config = msgspec.structs.replace(config, iggy=iggy)
    found = (wrong + config_problems(config, reading.is_used) + also(config, reading.is_used))[:MAX_PROBLEMS]
    problems += [problem for problem in found
                 if not reading.depends_on_unset(problem) and not reading.follows(problem)
                 and (is_whole or not _MISSING.search(problem))]
    return config, [reading.redacted(problem) for problem in problems]


def _located(problem: str, merged: Merged, inputs: ConfigInputs) -> Problem:
    """A mistake with its place: that of its key, or of the nearest table that holds it."""
    key = problem.partition(": ")[0]
    origin = merged.origin(key)
    if origin is None:
        return Problem(str(inputs), 0, key, problem)
    return Problem(origin.place, origin.line, key, problem)


def _folder_of(merged: Merged, key: str, folder: str) -> str:
    origin = merged.origin(key)
    return folder if origin is None else origin.folder


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return "/"


def _override(merged: Merged, options: Mapping[str, object], sources: Mapping[str, object], folder: str) -> None:
    """Replaces what the file has with the options of a command, where they are given. Wrong tables are left alone."""
    for name, value in options.items():
        if value is not None and isinstance(merged.tables.setdefault("pipeline", {}), dict):
            _replace(merged, merged.tables["pipeline"], f"pipeline.{name}", value, folder)
    listed = merged.tables.get("sources")
    for index, source in enumerate(listed if isinstance(listed, list) else []):
        for name, value in sources.items():
            if value is not None and isinstance(source, dict):
                _replace(merged, source, f"sources[{index}].{name}", value, folder)


def _replace(merged: Merged, table: dict[str, Any], key: str, value: object, folder: str) -> None:
    name = key.rpartition(".")[2]
    table[name] = value
    merged.record(key, value, Origin(f"--{name.replace('_', '-')}", folder))
