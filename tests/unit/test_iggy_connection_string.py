"""Iggy's connection strings."""

from pathlib import Path

import pytest
from apache_iggy import IggyClient

from pipeline.commands.config import load_config
from pipeline.config.iggy_connection_string import expanded
from pipeline.config.iggy_schema import IggyConfig, IggyTlsConfig
from pipeline.errors import ConfigError


@pytest.mark.parametrize(("text", "expected"), [
    ("iggy://u:p@h:8090", IggyConfig(address="h:8090", username="u", password="p")),
    ("iggy+tcp://iggypat-abc@h:8090", IggyConfig(address="h:8090", token="iggypat-abc")),
    ("iggy+quic://u:p:q@[::1]:8080", IggyConfig(address="[::1]:8080", transport="quic", username="u", password="p:q")),
    ("iggy+ws://u:p@h:8092?tls=true&tls_domain=d&tls_ca_file=/c&tls_validate_certificate=true", IggyConfig(
        address="h:8092", transport="websocket", username="u", password="p",
        tls=IggyTlsConfig(enabled=True, domain="d", ca_file="/c"))),
])
def test_it_stands_for_the_keys_of_the_table(text: str, expected: IggyConfig) -> None:
    assert expanded(IggyConfig(connection_string=text)) == (expected, [])


@pytest.mark.parametrize("text", ["iggy://u:p@h:8090", "iggy+tcp://iggypat-abc@h:8090", "iggy+quic://u:p@h:8080",
                                  "iggy+ws://u:p@h:8092?tls=true&tls_domain=d&tls_ca_file=/c"])
def test_the_client_takes_them_too(text: str) -> None:
    IggyClient.from_connection_string(text)


@pytest.mark.parametrize(("line", "key", "what"), [
    ('connection_string = "u:hunter2-secret@h:1"', "iggy.connection_string", "is none"),
    ('connection_string = "iggy+tcp://h:1"', "iggy.connection_string", "is none"),
    ('connection_string = "iggy+http://u:hunter2-secret@h:1"', "iggy.connection_string", "HTTP API"),
    ('connection_string = "kafka://u:hunter2-secret@h:1"', "iggy.connection_string", "begins with kafka://"),
    ('connection_string = "iggy+tcp://:hunter2-secret@h:1"', "iggy.connection_string", "no user"),
    ('connection_string = "iggy+tcp://u:hunter2-secret@h"', "iggy.address", "host:port"),
    ('connection_string = "iggy+tcp://u:hunter2-secret@h:1?reconnection_retries=3"', "iggy.connection_string",
     "reconnection_retries"),
    ('connection_string = "iggy+tcp://u:hunter2-secret@h:1?tls=yes"', "iggy.connection_string", "true or false"),
    ('connection_string = "iggy+tcp://u:hunter2-secret@h:1"\naddress = "h:1"', "iggy.address", "not beside"),
    ('connection_string = "iggy+tcp://u:hunter2-secret@h:1"\ntoken = "t"', "iggy.token", "not beside"),
    ('connection_string = "iggy+tcp://u:hunter2-secret@h:1?tls_domain=d"', "iggy.tls.domain", "no effect"),
])
def test_a_wrong_one_is_named_and_not_quoted(tmp_path: Path, line: str, key: str, what: str) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(f'[iggy]\n{line}\n[[topics]]\nstream="s"\ntopic="t"\n[influxdb]\norg="o"\nbucket="b"\n')
    with pytest.raises(ConfigError) as caught:
        load_config(str(path), {})
    assert key in str(caught.value) and what in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_its_password_is_in_no_configuration_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text('[iggy]\nconnection_string = "${IGGY}"\n[[topics]]\nstream="s"\ntopic="t"\n'
                    '[influxdb]\norg="o"\nbucket="b"\n')
    config = load_config(str(path), {"IGGY": "iggy+ws://u:hunter2-secret@h:8092"})
    assert (config.iggy.password, config.iggy.connection_string) == ("hunter2-secret", "")
    assert config.iggy.label() == "h:8092"
