"""Mistakes in how a database is named and reached, of a sink and of a source alike. Reads files; asks no server."""

import ipaddress
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from pipeline.config.connection_schema import ConnectionConfig
from pipeline.config.secrets import header_problems, why_no_value
from pipeline.config.values import Used, shown
from pipeline.files import secret_problem

#: (option, versions that use it): with another version the option has no effect.
VersionOptions = tuple[tuple[str, tuple[str, ...]], ...]
#: Options that have to be given, by version.
_REQUIRED: Final = {"v2": ("bucket",), "v1": ("database",), "v3": ("database",), "auto": ()}
#: Paths that the writer adds to a URL by itself.
_WRITE_PATHS: Final = ("/write", "/api/v2/write", "/api/v3/write_lp")
_PORTS: Final = {"http": 80, "https": 443}
#: An organization's id in InfluxDB 2; all zeros is none. Source: influxdata/influxdb, `kit/platform/id.go`.
_ORG_ID: Final = re.compile(r"(?!0{16})[0-9A-Fa-f]{16}")
_PROXY: Final = re.compile(r"(http://)?[^/\s]+/?")
#: A token with the scheme that the client puts before it by itself.
_HAS_SCHEME: Final = re.compile(r"\s*(token|bearer|basic)\s", re.IGNORECASE)
#: Headers that the client sets itself.
_CLIENT_HEADERS: Final = ("connection", "content-encoding", "content-length", "transfer-encoding")
#: Largest token file, bytes: a larger file is not a token.
MAX_TOKEN_BYTES: Final = 65_536
#: Longest URL, characters.
MAX_URL: Final = 4_000
_TLS_FILES: Final = ("ca_file", "client_cert_file", "client_key_file")


def connection_problems(connection: ConnectionConfig, key: str, used: Used, options: VersionOptions,
                        read_ca_file: bool = True) -> list[str]:
    """A line for each mistake in the table at `key`: the key, and what is allowed.

    Files are read only for keys that are `used`; `ca_file` only with `read_ca_file`.
    """
    return (_url_problems(connection, key) + _version_problems(connection, key, options)
            + _credential_problems(connection, key, used) + header_problems(connection, key)
            + _header_problems(connection, key) + _tls_problems(connection, key, used, read_ca_file)
            + _backoff_problems(connection, key))


def connection_warnings(connection: ConnectionConfig, key: str) -> list[str]:
    """Options that have no effect, and harm nothing."""
    if _has_tls(connection):
        return []
    return [f"{key}.{option}: no effect: no url begins with https://, so nothing is encrypted"
            for option in (*_TLS_FILES, "insecure_skip_verify") if getattr(connection, option)]


def _url_problems(connection: ConnectionConfig, key: str) -> list[str]:
    problems = []
    seen: list[str] = []
    for option, url in connection.named_servers():
        if wrong := _wrong_with_url(url, key):
            problems.append(f"{key}.{option}: {wrong}")
            continue
        if same_server(url) in seen:
            problems.append(f"{key}.{option}: {shown(url)} occurs twice; name each server once")
        seen.append(same_server(url))
    if connection.url and connection.urls:
        problems.append(f"{key}.urls: not beside url; give one server as url, or all of them as urls")
    if connection.proxy and not _PROXY.fullmatch(connection.proxy):
        problems.append(f"{key}.proxy: is not allowed; give http://host:port")
    return problems


def _wrong_with_url(url: str, key: str) -> str:
    if len(url) > MAX_URL:
        return f"is longer than {MAX_URL:,} characters; give http://host:port"
    parts = _split(url)
    if parts is None or parts.scheme not in _PORTS or not parts.hostname:
        return f"{shown(_without_query(url))} is not allowed; give http://host:port or https://host:port"
    if "@" in parts.netloc:
        return f"may not hold a password; use {key}.username and {key}.password"
    if "?" in url or "#" in url:
        return (f"{shown(_without_query(url))} has a query or fragment, which is not sent; give http://host:port, and "
                "the rest as options")
    if parts.path.rstrip("/").endswith(_WRITE_PATHS):
        return f"{shown(url)}: the path to write to is added to it; give http://host:port"
    return ""


def _split(url: str) -> SplitResult | None:
    """The parts of a URL; None where the text is not a URL."""
    if not url.isprintable() or any(character.isspace() or character in "\\\"<>^`{|}" for character in url):
        return None
    try:
        parts = urlsplit(url)
        if parts.port is not None and not parts.port:
            return None
        if parts.netloc.endswith(":"):
            return None
        if parts.hostname:
            parts.hostname.encode("idna") if ":" not in parts.hostname else ipaddress.ip_address(parts.hostname)
    except ValueError:
        return None
    return parts


def _without_query(url: str) -> str:
    """A URL for an error: a query may hold a secret."""
    return re.sub(r"[?#].*", "?...", url, flags=re.DOTALL)


def same_server(url: str) -> str:
    """One spelling for equal URLs: the case of the host, a default port and slashes at the end make no difference."""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').rstrip('.')}:{port}{parts.path.rstrip('/')}"


def _version_problems(connection: ConnectionConfig, key: str, options: VersionOptions) -> list[str]:
    version, default = connection.version, type(connection)()
    problems = [f'{key}.{name}: required with version = "{version}"'
                for name in _REQUIRED[version] if not getattr(connection, name)]
    if version == "auto" and not connection.bucket and not connection.database:
        problems.append(f"{key}.bucket: give bucket (and org), or database for InfluxDB 1.x")
    for option, versions in options:
        if getattr(connection, option) == getattr(default, option):
            continue
        if version != "auto" and version not in versions:
            problems.append(f'{key}.{option}: no effect with version = "{version}"{_instead(option, version)}')
        elif version == "auto" and option in ("org", "org_id") and not connection.bucket:
            problems.append(f"{key}.{option}: only with bucket")
    if connection.org_id and not _ORG_ID.fullmatch(connection.org_id):
        problems.append(f"{key}.org_id: is not the id of an organization; give its 16 hexadecimal digits, as in the "
                        "URL of InfluxDB's own pages, or org, its name")
    if connection.org and connection.org_id:
        problems.append(f"{key}.org_id: not beside org; give one of them")
    return problems


def _instead(option: str, version: str) -> str:
    if option == "database":
        return ", which has buckets; give bucket alone"
    return ", which has databases; give database alone" if option == "bucket" else ""


def _credential_problems(connection: ConnectionConfig, key: str, used: Used) -> list[str]:
    problems = []
    tokens = [option for option in ("token", "token_file") if getattr(connection, option)]
    if len(tokens) > 1:
        problems.append(f"{key}.token_file: not beside token; give one of them")
    if tokens and connection.username:
        problems.append(f"{key}.username: not beside {tokens[0]}, which is sent instead")
    if connection.password and not connection.username:
        problems.append(f"{key}.password: only with username")
    if connection.token_file and used(f"{key}.token_file"):
        problems += [f"{key}.token_file: {wrong}" for wrong in _wrong_with_token_file(connection.token_file)]
    if _HAS_SCHEME.match(connection.token):
        problems.append(f'{key}.token: give the token alone, without "Token" or "Bearer" before it')
    return problems


def _wrong_with_token_file(path: str) -> Iterator[str]:
    if os.path.isdir(path):
        yield f"{shown(path)} is a folder; give a file"
    elif not os.access(path, os.R_OK):
        yield f"{shown(path)} cannot be read"
    elif problem := secret_problem(path):
        yield f"{shown(path)} {problem}"
    elif os.path.isfile(path):  # a pipe gives its content only once, to the process that sends it
        if wrong := _wrong_with_token(path):
            yield f"{shown(path)}{wrong}"


def _wrong_with_token(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        return f" cannot be read: {error.strerror}"
    if len(content) > MAX_TOKEN_BYTES:
        return f" is larger than {MAX_TOKEN_BYTES:,} bytes; give a file that holds the token alone"
    if not content.strip():
        return " is empty; write the token into it"
    try:
        token = content.decode().strip()
    except UnicodeDecodeError:
        return ""  # an error of the processes that send it, which read the file again when it has changed
    if _HAS_SCHEME.match(token):
        return ': write the token alone, without "Token" or "Bearer" before it'
    wrong = why_no_value(token)
    return f": {wrong}" if wrong else ""


def _header_problems(connection: ConnectionConfig, key: str) -> list[str]:
    problems = []
    seen = set()
    for name in connection.headers:
        if name.lower() in seen:
            problems.append(f"{key}.headers: {shown(name)} occurs twice; case does not matter in headers")
        seen.add(name.lower())
        if name.lower() == "authorization" and (connection.token or connection.token_file or connection.username):
            problems.append(f"{key}.headers.{name}: not beside token, token_file and username")
        if name.lower() in _CLIENT_HEADERS:
            problems.append(f"{key}.headers.{name}: is set by the pipeline itself; remove it")
    return problems


def _tls_problems(connection: ConnectionConfig, key: str, used: Used, read_ca_file: bool) -> list[str]:
    problems = []
    if connection.insecure_skip_verify and connection.ca_file:
        problems.append(f"{key}.insecure_skip_verify: not beside ca_file, with which certificates are verified")
    if connection.client_key_file and not connection.client_cert_file:
        problems.append(f"{key}.client_cert_file: required with client_key_file")
    # The file of a certificate may hold the key, too.
    secret = "client_key_file" if connection.client_key_file else "client_cert_file"
    files = [option for option in _TLS_FILES if getattr(connection, option) and used(f"{key}.{option}")]
    unreadable = [f"{key}.{option}: {wrong}" for option in files
                  for wrong in _wrong_with_file(getattr(connection, option), option == secret)]
    if unreadable:
        return problems + unreadable
    if "ca_file" in files and read_ca_file:
        problems += [f"{key}.ca_file: {wrong}" for wrong in _wrong_with_authority(connection.ca_file)]
    if "client_cert_file" in files and not problems and _has_tls(connection):
        problems += [f"{key}.client_cert_file: {wrong}" for wrong in _wrong_with_certificate(connection)]
    return problems


def _has_tls(connection: ConnectionConfig) -> bool:
    return any(url.lower().startswith("https:") for url in connection.servers())


def _wrong_with_file(path: str, secret: bool) -> list[str]:
    if os.path.isdir(path):
        return [f"{shown(path)} is a folder; give a file"]
    if not os.access(path, os.R_OK):
        return [f"{shown(path)} cannot be read"]
    problem = secret_problem(path) if secret else ""
    return [f"{shown(path)} {problem}"] if problem else []


def _wrong_with_authority(path: str) -> list[str]:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError) as error:
        readable = isinstance(error, ssl.SSLError) or not isinstance(error, OSError)
        why = "it holds no certificate in PEM form" if readable else getattr(error, "strerror", "")
        return [f"{path} cannot be used: {why}"]
    return []


def _wrong_with_certificate(connection: ConnectionConfig) -> list[str]:
    """Whether the client's certificate can be loaded with the key that belongs to it."""
    try:
        # A password is given, because OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            connection.client_cert_file, connection.client_key_file or None, lambda: "")
    except (OSError, ValueError):
        return [f"{shown(connection.client_cert_file)} and its key cannot be used; give a certificate in PEM, and the "
                "key that belongs to it without a password"]
    return []


def _backoff_problems(connection: ConnectionConfig, key: str) -> list[str]:
    if connection.retry_backoff_ms > connection.retry_backoff_max_ms:
        return [f"{key}.retry_backoff_max_ms: must be at least retry_backoff_ms"]
    return []
