"""The configurations of pipelines that tests, benchmarks and fault injection run."""

from pathlib import Path

from msgspec import Struct

#: `[influxdb]` of a sandbox InfluxDB 2, beside its `url`.
SANDBOX_V2 = 'version = "v2"\norg = "sandbox"\nbucket = "sandbox"\ntoken = "sandbox-token"\n'
_SINK = """
[http]
{http}
[iggy]
address = "{iggy}"
{iggy_options}
[[topics]]
stream = "{stream}"
topic = "{topic}"
{topic_options}
[mapping]
{mapping}
[influxdb]
{influxdb}
[dead_letters]
{dead_letters}
[pipeline]
runtime_dir = "{folder}"
{options}
"""
_SOURCE = """
[http]
{http}
[iggy]
address = "{iggy}"
[[sources]]
name = "source"
{source}
[sources.influxdb]
{influxdb}
[sources.output]
stream = "{stream}"
{output}
[pipeline]
runtime_dir = "{folder}"
{options}
"""


class SinkConfiguration(Struct, frozen=True, kw_only=True):
    """A pipeline from one topic to one database. Each attribute is TOML text: the lines of a table."""

    stream: str
    topic: str
    influxdb: str
    mapping: str = ""
    #: Beside the address.
    iggy_options: str = ""
    #: Beside the names.
    topic_options: str = ""
    dead_letters: str = ""
    #: Of `[pipeline]`, beside `runtime_dir`.
    options: str = ""
    #: Without a port, which other pipelines of this machine may use.
    http: str = 'listen = ""'

    def text(self, iggy: str, folder: Path) -> str:
        """The file: `iggy` is host:port, `folder` that of the sockets."""
        return _filled(_SINK, self, iggy, folder)


class SourceConfiguration(Struct, frozen=True, kw_only=True):
    """A pipeline from one database to one stream, named "source". Each attribute is TOML text: lines of a table."""

    stream: str
    influxdb: str
    #: Of `[[sources]]`, beside the name: where the state is, at least.
    source: str
    #: Beside the stream.
    output: str = ""
    #: Of `[pipeline]`, beside `runtime_dir`; other tables may follow.
    options: str = ""
    http: str = 'listen = ""'

    def text(self, iggy: str, folder: Path) -> str:
        """The file: `iggy` is host:port, `folder` that of the sockets."""
        return _filled(_SOURCE, self, iggy, folder)


def _filled(template: str, configuration: Struct, iggy: str, folder: Path) -> str:
    values = {name: getattr(configuration, name) for name in configuration.__struct_fields__}
    return template.format(iggy=iggy, folder=folder, **values)
