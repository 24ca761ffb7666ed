"""Mistakes in `[influxdb]` and `[sources.influxdb]` that only show when keys are seen together. Asks no server."""

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from msgspec.structs import replace

from pipeline.config.schema import InfluxConfig
from pipeline.config.secrets import header_problems, why_no_value
from pipeline.config.target_checks import HAS_SCHEME, connection_problems
from pipeline.config.values import shown
from pipeline.files import secret_problem

#: Options that some write APIs have no use for: (option, versions that have).
_OF_VERSIONS: Final = (("bucket", ("v2",)), ("org", ("v2",)), ("org_id", ("v2",)), ("database", ("v1", "v3")),
                       ("retention_policy", ("v1",)), ("consistency", ("v1",)), ("accept_partial", ("v3",)),
                       ("no_sync", ("v3",)))
#: The same for reading: InfluxQL of InfluxDB 2 knows databases and retention policies.
_OF_READING: Final = (("bucket", ("v2",)), ("org", ("v2",)), ("org_id", ("v2",)), ("database", ("v1", "v2", "v3")),
                      ("retention_policy", ("v1", "v2")))
_REQUIRED: Final = {"v2": ("bucket",), "v1": ("database",), "v3": ("database",), "auto": ()}
#: Ends of paths that the writer adds itself.
_WRITE_PATHS: Final = ("/write", "/api/v2/write", "/api/v3/write_lp")
_PORTS: Final = {"http": 80, "https": 443}
#: Longest token file, bytes: what is longer is something else.
MAX_TOKEN_BYTES: Final = 65_536
_TLS_FILES: Final = ("ca_file", "client_cert_file", "client_key_file")

Used = Callable[[str], bool]


def influxdb_problems(influxdb: InfluxConfig, key: str, used: Used, reading: bool = False) -> list[str]:
    """A line for each mistake: key, and what is allowed. `reading`: it is a source's. Of what is not `used`, no file is
    looked at.
    """
    return (_url_problems(influxdb, key) + _version_problems(influxdb, key, _OF_READING if reading else _OF_VERSIONS)
            + _credential_problems(influxdb, key, used) + header_problems(influxdb, key)
            + _header_problems(influxdb, key) + _tls_problems(influxdb, key, used, reading)
            + _rest_problems(influxdb, key))


def _url_problems(influxdb: InfluxConfig, key: str) -> list[str]:
    problems = []
    seen: list[str] = []
    for option, url in influxdb.named_servers():
        wrong = _wrong_with_url(url, key)
        if wrong:
            problems.append(f"{key}.{option}: {wrong}")
            continue
        if same_server(url) in seen:
            what = "every point would be written there twice" if influxdb.replication == "mirror" else \
                "it stands in for itself"
            problems.append(f"{key}.{option}: {shown(url)} is there twice; {what}")
        seen.append(same_server(url))
    if influxdb.url and influxdb.urls:
        problems.append(f"{key}.urls: not beside url; give one server as url, or all of them as urls")
    if influxdb.replication == "mirror" and len(influxdb.servers()) == 1:
        problems.append(f'{key}.urls: required with replication = "mirror", and at least two servers in it')
    return problems


def _wrong_with_url(url: str, key: str) -> str:
    parts = _split(url)
    if parts is None or parts.scheme not in _PORTS or not parts.hostname:
        return f"{shown(_shortened(url))} is not allowed; give http://host:port or https://host:port"
    if "@" in parts.netloc:
        return f"may not hold a password; use {key}.username and {key}.password"
    if "?" in url or "#" in url:
        return (f"{shown(_shortened(url))} is followed by a query or fragment, which is not sent; give "
                "http://host:port, and all else by options")
    if parts.path.rstrip("/").endswith(_WRITE_PATHS):
        return f"{shown(url)}: the path to write to is added to it; give http://host:port"
    return ""


def _split(url: str) -> SplitResult | None:
    """The parts of a URL; None where it is none."""
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


def _shortened(url: str) -> str:
    """A URL for people, without what may be secret in its query."""
    return re.sub(r"[?#].*", "?...", url, flags=re.DOTALL)


def same_server(url: str) -> str:
    """One spelling for all of one URL: case of the host, default port and slashes at the end don't matter."""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').rstrip('.')}:{port}{parts.path.rstrip('/')}"


def _version_problems(influxdb: InfluxConfig, key: str, options: tuple[tuple[str, tuple[str, ...]], ...]) -> list[str]:
    version, default = influxdb.version, InfluxConfig()
    problems = [f'{key}.{name}: required with version = "{version}"'
                for name in _REQUIRED[version] if not getattr(influxdb, name)]
    if version == "auto" and not influxdb.bucket and not influxdb.database:
        problems.append(f"{key}.bucket: give bucket (and org), or database for InfluxDB 1.x")
    for option, versions in options:
        if getattr(influxdb, option) == getattr(default, option):
            continue
        if version != "auto" and version not in versions:
            problems.append(f'{key}.{option}: no effect with version = "{version}"{_instead(option, version)}')
        elif version == "auto" and option in ("org", "org_id") and not influxdb.bucket:
            problems.append(f"{key}.{option}: only with bucket")
    return problems


def _instead(option: str, version: str) -> str:
    if option == "database":
        return ", which has buckets; give bucket alone"
    return ", which has databases; give database alone" if option == "bucket" else ""


def _credential_problems(influxdb: InfluxConfig, key: str, used: Used) -> list[str]:
    problems = []
    tokens = [option for option in ("token", "token_file") if getattr(influxdb, option)]
    if len(tokens) > 1:
        problems.append(f"{key}.token_file: not beside token; give one of them")
    if tokens and influxdb.username:
        problems.append(f"{key}.username: not beside {tokens[0]}, which is what is sent")
    if influxdb.password and not influxdb.username:
        problems.append(f"{key}.password: only with username")
    if influxdb.token_file and used(f"{key}.token_file"):
        problems += [f"{key}.token_file: {wrong}" for wrong in _wrong_with_token_file(influxdb.token_file)]
    return problems


def _wrong_with_token_file(path: str) -> list[str]:
    if os.path.isdir(path):
        return [f"{shown(path)} is a folder; give a file"]
    if not os.access(path, os.R_OK):
        return [f"{shown(path)} can't be read"]
    if problem := secret_problem(path):
        return [f"{shown(path)} {problem}"]
    if not os.path.isfile(path):
        return []  # a pipe gives what it has only once
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        return [f"{shown(path)} can't be read: {error.strerror}"]
    if len(content) > MAX_TOKEN_BYTES:
        return [f"{shown(path)} is larger than {MAX_TOKEN_BYTES:,} bytes; give a file that holds the token alone"]
    if not content.strip():
        return [f"{shown(path)} is empty; write the token into it"]
    try:
        token = content.decode().strip()
    except UnicodeDecodeError:
        return []  # said by the processes that read it, and again when it has changed
    if HAS_SCHEME.match(token):
        return [f'{shown(path)}: write the token alone, without "Token" or "Bearer" before it']
    wrong = why_no_value(token)
    return [f"{shown(path)}: {wrong}"] if wrong else []


def _header_problems(influxdb: InfluxConfig, key: str) -> list[str]:
    problems = []
    seen = set()
    for name in influxdb.headers:
        if name.lower() in seen:
            problems.append(f"{key}.headers: {shown(name)} is there twice; case does not matter in headers")
        seen.add(name.lower())
        if name.lower() == "authorization" and (influxdb.token or influxdb.token_file or influxdb.username):
            problems.append(f"{key}.headers.{name}: not beside token, token_file and username")
    return problems


def _tls_problems(influxdb: InfluxConfig, key: str, used: Used, reading: bool) -> list[str]:
    problems = []
    if influxdb.insecure_skip_verify and influxdb.ca_file:
        problems.append(f"{key}.insecure_skip_verify: not beside ca_file, with which certificates are verified")
    if influxdb.client_key_file and not influxdb.client_cert_file:
        problems.append(f"{key}.client_cert_file: required with client_key_file")
    # A certificate's file may have the key in it.
    secret = "client_key_file" if influxdb.client_key_file else "client_cert_file"
    files = [option for option in _TLS_FILES if getattr(influxdb, option) and used(f"{key}.{option}")]
    unreadable = [f"{key}.{option}: {wrong}" for option in files
                  for wrong in _wrong_with_file(getattr(influxdb, option), option == secret)]
    # A source's is tried by the transport that it is for, before anything starts.
    readable = influxdb if "ca_file" in files and not unreadable and not reading else replace(influxdb, ca_file="")
    problems += connection_problems(readable, key)
    if "client_cert_file" in files and not unreadable and not problems and _has_tls(influxdb):
        problems += _wrong_with_certificate(influxdb, key)
    return problems + unreadable


def influxdb_option_warnings(influxdb: InfluxConfig, key: str) -> list[str]:
    """Options that have no effect, and harm nothing."""
    if _has_tls(influxdb):
        return []
    return [f"{key}.{option}: no effect: no url begins with https://, and nothing is encrypted"
            for option in (*_TLS_FILES, "insecure_skip_verify") if getattr(influxdb, option)]


def _has_tls(influxdb: InfluxConfig) -> bool:
    return any(url.lower().startswith("https:") for url in influxdb.servers())


def _wrong_with_file(path: str, secret: bool) -> list[str]:
    if os.path.isdir(path):
        return [f"{shown(path)} is a folder; give a file"]
    if not os.access(path, os.R_OK):
        return [f"{shown(path)} can't be read"]
    problem = secret_problem(path) if secret else ""
    return [f"{shown(path)} {problem}"] if problem else []


def _wrong_with_certificate(influxdb: InfluxConfig, key: str) -> list[str]:
    """Our own certificate, and a key that must belong to it."""
    # Only those who have one pay for its code.
    import ssl

    try:
        # A password: without one the terminal would be asked.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            influxdb.client_cert_file, influxdb.client_key_file or None, lambda: "")
    except (OSError, ValueError):
        return [f"{key}.client_cert_file: {shown(influxdb.client_cert_file)} and its key can't be used; give a "
                "certificate in PEM, and the key that belongs to it without a password"]
    return []


def _rest_problems(influxdb: InfluxConfig, key: str) -> list[str]:
    problems = []
    if influxdb.retry_backoff_ms > influxdb.retry_backoff_max_ms:
        problems.append(f"{key}.retry_backoff_max_ms: must be at least retry_backoff_ms")
    return problems
