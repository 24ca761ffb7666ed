"""The secrets in a configuration, and the values that an HTTP header cannot hold. Pure."""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import msgspec

from pipeline.config.connection_schema import ConnectionConfig
from pipeline.config.schema import Config
from pipeline.config.secret_keys import SECRET_HEADER

#: Shorter secrets occur in too many words to be replaced everywhere.
MIN_CHARACTERS: Final = 6
#: Patterns of a header's value and name. Source: RFC 9110, 5.5 and 5.6.2; characters beyond ASCII are refused.
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Characters of a URL as it is sent.
_URL: Final = re.compile(r"[^\x00-\x20\x7f]*")


def secrets_of(config: Config) -> set[str]:
    """All texts that must not be logged: tokens, passwords, secret headers, and the forms in which they are sent.

    A text that also occurs elsewhere in the configuration, such as the password "iggy" of the user iggy, is not secret.
    """
    secrets = {*_forms(config.iggy.username, config.iggy.password), *_forms("", config.iggy.token)}
    for sink in config.all_sinks():
        secrets.update(_of(sink.influxdb))
    for source in config.sources:
        secrets.update(_of(source.influxdb))
    secrets.update(_forms("", config.http.token))
    for value in config.otlp.headers.values():
        secrets.update((*_forms("", value), *_forms("", value.rpartition(" ")[2])))
    secrets.update(_forms(*_userinfo(config.otlp.endpoint)))
    plain = list(_plain(msgspec.to_builtins(config)))
    return {secret for secret in secrets if len(secret) >= MIN_CHARACTERS and not any(secret in text for text in plain)}


def secret_forms(secret: str, user: str = "") -> set[str]:
    """The forms of a token, or the password of `user`, that was read from a file."""
    return set(_forms(user, secret)) if len(secret) >= MIN_CHARACTERS else set()


def _of(influxdb: ConnectionConfig) -> Iterator[str]:
    yield from _forms("", influxdb.token)
    yield from _forms(influxdb.username, influxdb.password)
    for name, value in influxdb.headers.items():
        if SECRET_HEADER.search(name):
            yield from _forms("", value)
            yield from _forms("", value.rpartition(" ")[2])
    for url in (*influxdb.servers(), influxdb.proxy):
        user, password = _userinfo(url)
        yield from _forms(user, password)


def _forms(user: str, secret: str) -> Iterator[str]:
    """A secret as it is, in a URL, in a Python or JSON text, and as a Basic authorization."""
    if secret:
        yield from (secret, secret.strip(), quote(secret, safe=""), quote(secret), ascii(secret)[1:-1],
                    repr(secret)[1:-1])
        yield from (line for line in secret.splitlines() if len(line) >= MIN_CHARACTERS)
        yield base64.b64encode(f"{user}:{secret}".encode("utf-8", "surrogateescape")).decode()


def _userinfo(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return unquote(parts.username or ""), unquote(parts.password or "")


def _plain(value: object, key: str = "") -> Iterator[str]:
    """The texts of a configuration that are no secrets."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name not in ("password", "token", "headers", "tests", "proxy"):
                yield from _plain(item, str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _plain(item, key)
    elif isinstance(value, str) and value and not (key in ("url", "urls") and "@" in value):
        yield value


def header_problems(influxdb: ConnectionConfig, key: str) -> list[str]:
    """A line for each value that could not be sent: line breaks and the like in credentials, headers and URLs.

    The values themselves are not in it.
    """
    problems = []
    if influxdb.token and not _VALUE.fullmatch(influxdb.token):
        problems.append(f"{key}.token: {why_no_value(influxdb.token)}")
    for option in ("username", "password"):
        value = getattr(influxdb, option)
        if not value.isprintable():
            problems.append(f"{key}.{option}: {why_no_value(value)}")
    if ":" in influxdb.username:
        problems.append(f"{key}.username: has a colon, which ends a user's name in HTTP")
    for name, value in influxdb.headers.items():
        if not _NAME.fullmatch(name):
            problems.append(f"{key}.headers: {ascii(name)[:60]} is not a name of a header; use letters, digits and -")
        elif value and not _VALUE.fullmatch(value):
            problems.append(f"{key}.headers.{name}: {why_no_value(value)}")
    for option, url in (*influxdb.named_servers(), ("proxy", influxdb.proxy)):
        if not _URL.fullmatch(url):
            problems.append(f"{key}.{option}: holds a space, a line break or another character that a URL cannot have")
    return problems


def why_no_value(value: str) -> str:
    """Why a text cannot be the value of a header, without quoting it; "" if it can."""
    if not value or _VALUE.fullmatch(value):
        return ""
    if "\n" in value.strip() or "\r" in value.strip():
        return "holds a line break; give it in one line"
    if value != value.strip():
        return "begins or ends with a space or a line break; remove it (in a shell, $(cat FILE) leaves none)"
    return "holds a character that no HTTP header may have; give printable ASCII"
