"""Chooses a source's dialect by its configuration and the server's version. Pure."""

import re

from pipeline.config.source_schema import SourceConfig
from pipeline.wire.source import Language
from stages.influxdb.flavour import Flavour, Version
from stages.languages.filters import choice_of
from stages.languages.flux import FluxDialect
from stages.languages.influxql import InfluxqlDialect
from stages.languages.language import Dialect
from stages.languages.v3 import JsonDialect


def version_to_query(config: SourceConfig, flavour: Flavour | None) -> Version:
    """The API to use: the configured one; with "auto" the detected one, or else the one that the options suggest."""
    if config.influxdb.transport == "flight":
        return "v3"
    if config.influxdb.version != "auto":
        return config.influxdb.version
    if flavour is not None and flavour.api is not None:
        return flavour.api
    return "v2" if config.influxdb.bucket else "v1"


def language_of(config: SourceConfig, version: Version) -> Language:
    """The language for a server of that version.

    InfluxDB 2 is asked in InfluxQL because its answers are ordered by time and correct. Flux answers of 2.7.10 to 2.8.0
    are wrong where empty strings are among others (https://github.com/influxdata/influxdb/issues/26916). See
    `may_fall_back`.
    """
    if version == "v3":
        # InfluxQL of InfluxDB 3 is only for custom queries; measurements are read in SQL (see `V3Dialect.page`).
        in_influxql = config.language == "influxql" and bool(config.query)
        if config.influxdb.transport == "flight":
            return "flight_influxql" if in_influxql else "flight_sql"
        return "v3_influxql" if in_influxql else "sql"
    if config.language == "auto":
        # InfluxDB 2 maps a bucket "a/b" to database a and retention policy b, and lists no measurements for it.
        only_flux = version == "v2" and not config.retention_policies and (
            config.query or "/" in config.influxdb.bucket)
        return "flux" if only_flux else "influxql"
    return config.language


def mixes_strings(flavour: Flavour | None) -> bool:
    """Whether Flux may give wrong strings, as InfluxDB OSS 2.7.10 to 2.8.0 does (see `language_of`). None: a server
    that was not asked what it is."""
    if flavour is None:
        return True
    numbers = tuple(int(one) for one in re.findall(r"\d+", flavour.version)[:3])
    return flavour.product == "InfluxDB OSS" and (2, 7, 10) <= numbers <= (2, 8, 0)


def may_fall_back(config: SourceConfig, version: Version, language: Language) -> bool:
    """Whether Flux is tried when the server has no database of the bucket's name: it may have no DBRP mapping."""
    return config.language == "auto" and version == "v2" and language == "influxql" and not config.retention_policies


def dialect_of(config: SourceConfig, language: Language) -> Dialect:
    """The dialect for a language, with the source's options."""
    influxdb = config.influxdb
    database = influxdb.database or influxdb.bucket
    custom, choice = bool(config.query), choice_of(config)
    types = config.types if custom else {}
    if language == "influxql":
        return InfluxqlDialect(database, influxdb.retention_policy, types, config.tags, custom,
                               bool(config.retention_policies), choice)
    if language == "flux":
        return FluxDialect(influxdb.bucket or influxdb.database, influxdb.org, influxdb.org_id, config.tags,
                           custom, choice)
    if language in ("flight_sql", "flight_influxql"):
        # Imported here, because pyarrow costs every other user start-up time and memory.
        from stages.languages.arrow import ArrowDialect
        return ArrowDialect(database, "sql" if language == "flight_sql" else "influxql", types, config.tags,
                            custom, choice)
    return JsonDialect(database, "sql" if language == "sql" else "influxql", types, config.tags, custom, choice)


def language_mismatch(config: SourceConfig, version: Version) -> str:
    """Why the configured language does not work with that version; "" when it does."""
    if config.retention_policies and version == "v3":
        return "retention_policies need InfluxDB 1 or 2, and this is 3.x"
    needed: dict[str, Version] = {"flux": "v2", "sql": "v3"}
    if needed.get(config.language, version) != version:
        return f'language = "{config.language}" needs InfluxDB {needed[config.language][1]}, and this is {version[1]}.x'
    return ""
