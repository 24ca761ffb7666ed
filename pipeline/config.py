"""Reads a configuration file: TOML into `pipeline.schema`, every mistake found and named at once."""

import difflib
import os
import re
import tomllib
import types
import typing
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import ConfigError
from pipeline.feedback import feedback_problems
from pipeline.files import secret_problem
from pipeline.schema import Config, InfluxConfig, MappingConfig
from pipeline.secrets import header_problems
from pipeline.target_check import connection_problems, target_problems

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?:(:-|:\?)([^}]*))?\}")

#: User and password in a URL.
_USERINFO = re.compile(r"[^/:@]*:[^/@]*@")
_DEFAULTS = Config()
EPOCH_FORMATS = ("epoch_ns", "epoch_us", "epoch_ms", "epoch_s")


def load_config(path: str, environ: typing.Mapping[str, str] | None = None,
                options: typing.Mapping[str, object] | None = None,
                sources: typing.Mapping[str, object] | None = None) -> Config:
    """The configuration in the file at `path`, with `${VAR}` in its strings replaced from `environ`.

    Where they are not None, `options` take the place of what is in `[pipeline]`, and `sources` in each `[[source]]`.
    Raises ConfigError with every mistake in it: file, key, what is allowed.
    """
    try:
        tables = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(path, [f"cannot be read: {error.strerror}; give a file with -c FILE"]) from None
    except UnicodeDecodeError:
        raise ConfigError(path, ["is not UTF-8 text"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [f"is not valid TOML: {error}"]) from None
    problems: list[str] = []
    tables = _substitute(tables, "", os.environ if environ is None else environ, problems)
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if given and isinstance(tables.setdefault("pipeline", {}), dict):
        tables["pipeline"].update(given)
    given = {name: value for name, value in (sources or {}).items() if value is not None}
    for source in tables.get("source", []) if given and isinstance(tables.get("source"), list) else []:
        if isinstance(source, dict):
            source.update(given)
    _check(tables, Config, "", problems)
    if not problems:
        config = msgspec.convert(tables, Config, strict=True)
        problems = _contradictions(config)
        if not problems:
            return config
    raise ConfigError(path, problems)


def _substitute(value: Any, key: str, environ: typing.Mapping[str, str], problems: list[str]) -> Any:
    """Replaces ${VAR}, ${VAR:-default} and ${VAR:?message} in string values, after parsing."""
    if isinstance(value, dict):
        return {k: _substitute(v, f"{key}.{k}".lstrip("."), environ, problems) for k, v in value.items()}
    if isinstance(value, list):
        return [_substitute(v, f"{key}[{i}]", environ, problems) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        found = environ.get(name, "")
        if found or (name in environ and operator is None):
            return found
        if operator == ":-":
            return str(rest)
        problems.append(f"{key}: environment variable {name} is not set" + (f": {rest}" if operator else ""))
        return ""

    return _VARIABLE.sub(replacement, value)


def _check(value: Any, expected: Any, key: str, problems: list[str]) -> None:
    """Appends a line for each mistake in `value`, going on after the first, unlike msgspec itself."""
    if isinstance(expected, type) and issubclass(expected, msgspec.Struct):
        _check_table(value, expected, key, problems)
        return
    if typing.get_origin(expected) is tuple and typing.get_args(expected)[-1] is Ellipsis:
        if not isinstance(value, list):
            problems.append(f"{key}: {_unless_secret(key, value)} is not a list")
            return
        for index, item in enumerate(value):
            _check(item, typing.get_args(expected)[0], f"{key}[{index}]", problems)
        return
    if typing.get_origin(expected) is dict:
        if not isinstance(value, dict):
            problems.append(f"{key}: {_unless_secret(key, value)} is not a table")
            return
        for name, item in value.items():
            _check(item, typing.get_args(expected)[1], f"{key}.{name}", problems)
        return
    try:
        msgspec.convert(value, expected, strict=True)
    except msgspec.ValidationError:
        problems.append(f"{key}: {_unless_secret(key, value)} is not allowed; give {_allowed(expected)}")


def _check_table(value: Any, expected: type[msgspec.Struct], key: str, problems: list[str]) -> None:
    if not isinstance(value, dict):
        problems.append(f"{key}: {_unless_secret(key, value)} is not a table")
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(expected)}
    for name, item in value.items():
        path = f"{key}.{name}".lstrip(".")
        if name in fields:
            _check(item, fields[name].type, path, problems)
        else:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]}?" if near else "allowed here: " + ", ".join(fields)
            problems.append(f"{path}: unknown key; {hint}")
    for name, field in fields.items():
        if field.required and name not in value:
            problems.append(f"{key}.{name}".lstrip(".") + ": missing; it is required")


def _contradictions(config: Config) -> list[str]:
    """Mistakes that only show when two keys are seen together."""
    problems: list[str] = []
    tops = [key for key in ("topics", "mapping", "influxdb") if getattr(config, key) != getattr(_DEFAULTS, key)]
    if config.sinks and tops:
        problems.append(f"{tops[0]}: not beside [[sinks]]; each sink has its own topics, mapping and influxdb")
    seen = set()
    for index, sink in enumerate(config.all_sinks()):
        key = f"sinks[{index}]." if config.sinks else ""
        if sink.name in [other.name for other in config.sinks[:index]]:
            problems.append(f"{key}name: {_shown(sink.name)} is there twice")
        if not sink.topics:
            problems.append(f"{key}topics: at least one [[{'sinks.' if config.sinks else ''}topics]] table is required")
        for number, topic in enumerate(sink.topics):
            identity = topic.stream, topic.topic, sink.consumer or config.iggy.consumer_group or config.iggy.consumer
            if identity in seen:
                problems.append(f"{key}topics[{number}]: {topic.stream}/{topic.topic} is there twice for the consumer "
                                f"{_shown(identity[2])}; give one of the sinks another consumer")
            seen.add(identity)
            if topic.partitions and config.iggy.consumer_group:
                problems.append(f"{key}topics[{number}].partitions: not with iggy.consumer_group; the group deals "
                                "the partitions out")
            if len(set(topic.partitions)) < len(topic.partitions):
                problems.append(f"{key}topics[{number}].partitions: a partition is there twice")
            try:
                start_position(topic.start_from)
            except ValueError:
                problems.append(f"{key}topics[{number}].start_from: {_shown(topic.start_from)} is not allowed; give "
                                '"earliest", "latest", an offset of 0 or more, or a time like 2026-01-31T00:00:00Z')
        found = mapping_contradictions(sink.mapping, f"{key}mapping")
        if not found:
            # Only those who have a mapping pay for its code.
            from stages.mapping.check import mapping_problems
            found = mapping_problems(sink.mapping, f"{key}mapping", [(t.stream, t.topic) for t in sink.topics])
        problems += found
        problems += _influxdb_contradictions(sink.influxdb, f"{key}influxdb")
        problems += target_problems(sink.influxdb, f"{key}influxdb", config.iggy.address)
        problems += header_problems(sink.influxdb, f"{key}influxdb")
    if config.source:
        # Only those who have a source pay for its code.
        from pipeline.source_config import source_problems
        problems += source_problems(config.source, _influxdb_contradictions)
        if not config.all_sinks() and tops:
            problems.append(f"{tops[0]}: without [[topics]] there is no sink that it is for; a source has its own "
                            "[source.influxdb] and [source.output]")
    return problems + feedback_problems(config) + _pipeline_contradictions(config)


def mapping_contradictions(mapping: MappingConfig, key: str) -> list[str]:
    """Mistakes of one mapping that only show when two of its keys are seen together."""
    problems = []
    for kind, option in (("static", "measurement_name"), ("field", "measurement_field"),
                         ("template", "measurement_template")):
        given = bool(getattr(mapping, option))
        if (mapping.measurement_from == kind) != given:
            problems.append(f'{key}.{option}: {"only" if given else "required"} with measurement_from = "{kind}"')
    try:
        mapping.template_paths()
    except ValueError as error:
        problems.append(f"{key}.measurement_template: {_shown(mapping.measurement_template)}: {error}")
    if mapping.timestamp_from == "field" and not mapping.timestamp_field:
        problems.append(f'{key}.timestamp_field: required with timestamp_from = "field"')
    if mapping.timestamp_format not in EPOCH_FORMATS and mapping.timestamp_format not in ("rfc3339", "iso8601") \
            and "%" not in mapping.timestamp_format:
        problems.append(f"{key}.timestamp_format: {_shown(mapping.timestamp_format)} is not allowed; give "
                        + ", ".join(EPOCH_FORMATS) + ", rfc3339, iso8601 or a strptime format")
    if mapping.field_strategy == "explicit" and not mapping.field_names:
        problems.append(f'{key}.field_names: required with field_strategy = "explicit"')
    if mapping.field_strategy == "remaining" and mapping.field_names:
        problems.append(f'{key}.field_names: only with field_strategy = "explicit"')
    for name in sorted(set(mapping.tag_fields) & set(mapping.field_names)):
        problems.append(f"{key}.field_names: {_shown(name)} is also in tag_fields; a key is a tag or a field")
    for option in ("tag_fields", "field_names", "metadata_tags", "csv_header"):
        names = getattr(mapping, option)
        if len(set(names)) < len(names):
            problems.append(f"{key}.{option}: a name is there twice")
    return problems


def _influxdb_contradictions(influxdb: InfluxConfig, key: str) -> list[str]:
    problems = []
    for option, url in (("url", influxdb.url), *(("more_urls", url) for url in influxdb.more_urls)):
        if not re.match(r"https?://[^/]", url):
            problems.append(f"{key}.{option}: {_shown(url)} is not allowed; give http://host:port or https://host:port")
        if re.match(r"https?://[^/]*@", url):
            problems.append(f"{key}.{option}: may not hold a password; use {key}.username and {key}.password")
    required = {"v2": ("bucket",), "v1": ("database",), "v3": ("database",), "auto": ()}[influxdb.version]
    problems += [f'{key}.{name}: required with version = "{influxdb.version}"'
                 for name in required if not getattr(influxdb, name)]
    if influxdb.version == "auto" and not influxdb.bucket and not influxdb.database:
        problems.append(f"{key}.bucket: give bucket (and org), or database for InfluxDB 1.x")
    if influxdb.token and influxdb.token_file:
        problems.append(f"{key}.token_file: not beside token; give one of them")
    # A certificate's file may have the key in it.
    secret_files = ("token_file", "client_key_file" if influxdb.client_key_file else "client_cert_file")
    for option in ("token_file", "ca_file", "client_cert_file", "client_key_file"):
        path = getattr(influxdb, option)
        if path and not os.access(path, os.R_OK):
            problems.append(f"{key}.{option}: {_shown(path)} can't be read")
        elif path and option in secret_files and (problem := secret_problem(path)):
            problems.append(f"{key}.{option}: {_shown(path)} {problem}")
    if influxdb.client_key_file and not influxdb.client_cert_file:
        problems.append(f"{key}.client_cert_file: required with client_key_file")
    if not any(problem.endswith("can't be read") for problem in problems):
        problems += connection_problems(influxdb, key)
    return problems


def _pipeline_contradictions(config: Config) -> list[str]:
    problems = []
    if bool(config.network.listen) != bool(config.network.keys):
        problems.append("network.keys: required with, and only with, network.listen; make some with: pipeline keys")
    if ("file" in config.dead_letters.to) != bool(config.dead_letters.file):
        problems.append('dead_letters.file: required with, and only with, "file" in dead_letters.to')
    host, _, port = config.iggy.address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        problems.append(f"iggy.address: {_shown(config.iggy.address)} is not allowed; give host:port")
    if config.iggy.consumer_group and config.iggy.consumer != _DEFAULTS.iggy.consumer:
        problems.append("iggy.consumer: not beside iggy.consumer_group; the offsets are the group's")
    shares = f" for each of the {config.pipeline.ingest} ingest processes" if config.pipeline.ingest > 1 else ""
    if config.pipeline.batch_size * config.pipeline.ingest > config.pipeline.window_messages:
        problems.append(f"pipeline.window_messages: must be at least pipeline.batch_size{shares}")
    if config.pipeline.max_batch_bytes * config.pipeline.ingest > config.pipeline.window_bytes:
        problems.append(f"pipeline.window_bytes: must be at least pipeline.max_batch_bytes{shares}")
    return problems


def start_position(start_from: str | int) -> tuple[str, int]:
    """`start_from` as ("earliest", 0), ("latest", 0), ("offset", n) or ("timestamp", microseconds since 1970).

    Raises ValueError for anything else.
    """
    if isinstance(start_from, int):
        if start_from < 0:
            raise ValueError(start_from)
        return "offset", start_from
    if start_from in ("earliest", "latest"):
        return start_from, 0
    time = datetime.fromisoformat(start_from)
    if time.tzinfo is None:
        raise ValueError(start_from)
    return "timestamp", round(time.timestamp() * 1_000_000)


def _unless_secret(key: str, value: Any) -> str:
    return "the value" if _is_secret(key) else _shown(value)


def _is_secret(key: str) -> bool:
    return key.rpartition(".")[2] in ("password", "token", "headers") or ".headers." in key


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):  # there may be secrets in it
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        value = _USERINFO.sub("***@", value)
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _allowed(expected: Any) -> str:
    """What a key takes, in words."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Annotated:
        return _allowed(arguments[0]) + _bounds(arguments[1])
    if origin is typing.Literal:
        return " or ".join(f'"{choice}"' for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_allowed(argument) for argument in arguments)
    return {int: "an integer", float: "a number", str: "a string", bool: "true or false"}.get(expected, str(expected))


def _bounds(meta: msgspec.Meta) -> str:
    if meta.min_length:
        return " that is not empty"
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge} to {meta.le}"
    return f" of {meta.ge} or more" if meta.ge is not None else ""
