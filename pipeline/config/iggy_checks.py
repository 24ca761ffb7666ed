"""Mistakes in `[iggy]`, and what is allowed there but unsafe. Reads files; asks no server."""

import ipaddress
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.config.iggy_schema import DEFAULT_USER, IggyConfig, IggyTlsConfig, is_loopback
from pipeline.config.values import Used, shown
from pipeline.files import secret_problem

#: Longest name, password and token, bytes of UTF-8. Source: Iggy's binary protocol, identifiers and login.
MAX_BYTES: Final = 255
#: A name of a server as TLS knows it. Source: RFC 1123, 2.1.
_DOMAIN: Final = re.compile(r"[0-9A-Za-z_]([0-9A-Za-z_.-]{0,251}[0-9A-Za-z_])?\.?")


def address_problems(key: str, address: str) -> list[str]:
    """What is wrong with `host:port`."""
    scheme, separator, _ = address.partition("://")
    if separator:
        return [f"{key}: {shown(address)} is not allowed; give host:port, without {scheme}://"]
    host, _, port = address.rpartition(":")
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else "" if ":" in host else host
    if not name or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65_536 \
            or any(character in "/@[]?#\\" or not character.isprintable() or character.isspace() for character in name):
        return [f"{key}: {shown(address)} is not allowed; give host:port"]
    return []


def iggy_problems(iggy: IggyConfig, used: Used) -> list[str]:
    """A line for each mistake: key, and what is allowed. Files are read only for keys that are `used`."""
    return [*_address_problems(iggy), *_login_problems(iggy, used), *_tls_problems(iggy, used)]


def iggy_warnings(iggy: IggyConfig) -> list[str]:
    """What anybody in the network could make use of."""
    remote = [server for server in iggy.servers() if not is_loopback(server)]
    warnings = []
    by_default = (iggy.username, iggy.password) == (DEFAULT_USER, DEFAULT_USER) and not iggy.password_file
    if remote and by_default and not iggy.has_token():
        warnings.append(f"iggy.password: user iggy with Iggy's well-known password logs in at {remote[0]}; give Iggy "
                        "another one (IGGY_ROOT_PASSWORD), and the pipeline a user of its own or a token")
    if remote and not iggy.is_encrypted():
        what = "the token" if iggy.has_token() else "the password"
        warnings.append(f"iggy.tls: {what} and all messages go to {remote[0]} in clear text; enable TLS in Iggy, and "
                        "here with enabled = true in [iggy.tls]")
    if iggy.is_encrypted() and not iggy.tls.validate_certificate:
        warnings.append("iggy.tls.validate_certificate: false: certificates are not verified, so traffic can be "
                        "intercepted and altered; give iggy.tls.ca_file instead")
    return warnings


def _address_problems(iggy: IggyConfig) -> Iterator[str]:
    if iggy.address and iggy.addresses:
        yield "iggy.addresses: not beside address; give one server as address, or all of them as addresses"
    keys = [f"iggy.addresses[{index}]" for index in range(len(iggy.addresses))] or ["iggy.address"]
    for key, server in zip(keys, iggy.servers(), strict=True):
        yield from address_problems(key, server)
    for index, server in enumerate(iggy.addresses):
        if server.lower() in [other.lower() for other in iggy.addresses[:index]]:
            yield f"iggy.addresses[{index}]: {shown(server)} occurs twice; name each server once"


def _login_problems(iggy: IggyConfig, used: Used) -> Iterator[str]:
    default = IggyConfig()
    given = [option for option in ("token", "token_file", "password_file", "password", "username")
             if getattr(iggy, option) != getattr(default, option)]
    if iggy.token and iggy.token_file:
        yield "iggy.token_file: not beside token; give one of them"
    for option in ("username", "password", "password_file"):
        if iggy.has_token() and option in given:
            yield f"iggy.{option}: not beside {given[0]}, which is sent instead"
    if "password" in given and iggy.password_file:
        yield "iggy.password_file: not beside password; give one of them"
    for option in ("password", "token"):
        value = getattr(iggy, option)
        if len(value.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            yield f"iggy.{option}: longer than {MAX_BYTES} bytes"
        if value != value.strip() or "\n" in value:
            yield f"iggy.{option}: begins or ends with a space or a line break; remove it"
    for option in ("password_file", "token_file"):
        path = getattr(iggy, option)
        if path and used(f"iggy.{option}"):
            yield from (f"iggy.{option}: {shown(path)} {wrong}" for wrong in _wrong_with_secret_file(path))


def _wrong_with_secret_file(path: str) -> Iterator[str]:
    """What is wrong with a file that holds a password or token. A pipe is not read: it gives its content only once."""
    if os.path.isdir(path):
        yield "is a folder; give a file"
    elif not os.access(path, os.R_OK):
        yield "cannot be read"
    elif problem := secret_problem(path):
        yield problem
    elif os.path.isfile(path):
        try:
            with Path(path).open("rb") as file:
                content = file.read(65_536).strip()
        except OSError as error:
            yield f"cannot be read: {error.strerror}"
            return
        if not content:
            yield "is empty; write the password or token into it"
        elif len(content) > MAX_BYTES or b"\n" in content:
            yield f"holds more than one line of {MAX_BYTES} bytes; give a file that holds the password or token alone"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _tls_problems(iggy: IggyConfig, used: Used) -> Iterator[str]:
    tls, default = iggy.tls, IggyTlsConfig()
    if not iggy.is_encrypted():
        for option in ("ca_file", "domain", "validate_certificate"):
            if getattr(tls, option) != getattr(default, option):
                yield f"iggy.tls.{option}: no effect without enabled = true"
        return
    if tls.ca_file and not tls.validate_certificate:
        yield "iggy.tls.validate_certificate: not false beside ca_file, with which certificates are verified"
    if tls.domain and not _DOMAIN.fullmatch(tls.domain) and not _is_ip(tls.domain):
        yield f"iggy.tls.domain: {shown(tls.domain)} is no name of a server; give one like iggy.example.org, no port"
    if tls.ca_file and used("iggy.tls.ca_file"):
        if not os.access(tls.ca_file, os.R_OK) or os.path.isdir(tls.ca_file):
            yield f"iggy.tls.ca_file: {shown(tls.ca_file)} cannot be read; give a file"
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(tls.ca_file)
        except (OSError, ValueError):
            yield f"iggy.tls.ca_file: {shown(tls.ca_file)} holds no certificate in PEM form"
