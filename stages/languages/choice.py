"""Which dialect a source speaks, by its configuration and the server's version. Pure."""

from pipeline.config.source_schema import SourceConfig
from pipeline.wire.source import Language
from stages.influxdb.flavour import Flavour, Version
from stages.languages.flux import Flux
from stages.languages.influxql import Influxql
from stages.languages.language import Dialect
from stages.languages.v3 import V3


def query_version(config: SourceConfig, flavour: Flavour | None) -> Version:
    """The API to ask: the configured one, or with "auto" what the server says, or what the configuration hints at."""
    if config.influxdb.transport == "flight":
        return "v3"
    if config.influxdb.version != "auto":
        return config.influxdb.version
    if flavour is not None and flavour.api is not None:
        return flavour.api
    return "v2" if config.influxdb.bucket else "v1"


def language_of(config: SourceConfig, version: Version) -> Language:
    """The dialect to speak with a server of that version. Of InfluxDB 2 that is InfluxQL: its answers come in the order
    of time, and are right; Flux's are not, in 2.7.10 to 2.8.0, where empty strings are among others
    (https://github.com/influxdata/influxdb/issues/26916). See `falls_back`."""
    if version == "v3":
        # Its InfluxQL is for a query of one's own; measurements are read in SQL (see `V3Queries.page`).
        in_influxql = config.language == "influxql" and bool(config.query)
        if config.influxdb.transport == "flight":
            return "flight_influxql" if in_influxql else "flight_sql"
        return "v3_influxql" if in_influxql else "sql"
    if config.language == "auto":
        # InfluxDB 2 makes a database and a retention policy of a bucket named "a/b", and lists no measurements of it.
        only_flux = version == "v2" and (config.query or "/" in config.influxdb.bucket)
        return "flux" if only_flux else "influxql"
    return config.language


def falls_back(config: SourceConfig, version: Version, language: Language) -> bool:
    """Whether Flux is to be asked where the server finds no database of the bucket's name: it may have no mapping."""
    return config.language == "auto" and version == "v2" and language == "influxql"


def dialect_of(config: SourceConfig, language: Language) -> Dialect:
    """The dialect itself."""
    influxdb = config.influxdb
    database = influxdb.database or influxdb.bucket
    custom = bool(config.query)
    if language == "influxql":
        return Influxql(database, influxdb.retention_policy, config.types, config.tags, custom)
    if language == "flux":
        return Flux(influxdb.bucket or influxdb.database, influxdb.org, influxdb.org_id, config.tags)
    if language in ("flight_sql", "flight_influxql"):
        # Only those who use it pay for its libraries.
        from stages.languages.arrow import Arrow
        return Arrow(database, "sql" if language == "flight_sql" else "influxql", config.types, config.tags, custom)
    return V3(database, "sql" if language == "sql" else "influxql", config.types, config.tags, custom)


def mismatch(config: SourceConfig, version: Version) -> str:
    """Why a server of that version can't be asked so, and what to do; "" when it can."""
    needed: dict[str, Version] = {"flux": "v2", "sql": "v3"}
    if needed.get(config.language, version) != version:
        return f'language = "{config.language}" needs InfluxDB {needed[config.language][1]}, and this is {version[1]}.x'
    return ""
