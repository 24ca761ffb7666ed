"""Mistakes in `[http]`."""

import ipaddress
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.config.http_schema import AUTO, AUTO_ADDRESS, HttpConfig
from pipeline.config.secrets import why_no_value
from pipeline.config.values import Used, shown
from pipeline.errors import PipelineError
from pipeline.files import secret_problem

if TYPE_CHECKING:
    import ssl


def http_problems(http: HttpConfig, used: Used) -> Iterator[str]:
    """A line for each mistake. Files are read only for keys that are `used`."""
    if http.listen not in ("", AUTO) and not _is_address(http.listen):
        yield f"http.listen: {shown(http.listen)} is not allowed; give host:port, \"{AUTO}\", or \"\" for none"
    if http.token and http.token_file:
        yield "http.token_file: not beside http.token; give one of them"
    if used("http.token") and (why := why_no_value(http.token)):
        yield f"http.token: {why}"
    if http.key_file and not http.cert_file:
        yield "http.key_file: only with http.cert_file"
    if used("http.token_file") and http.token_file:
        try:
            token_of(http)
        except PipelineError as error:
            yield str(error)
        if why := secret_problem(http.token_file):
            yield f"http.token_file: {http.token_file} {why}"
    if used("http.cert_file") and http.cert_file:
        try:
            server_context(http)
        except PipelineError as error:
            yield str(error)
    for name in http.allowed_hosts:
        if not all(part and part.isascii() and part.replace("-", "").replace("_", "").isalnum()
                   for part in name.split(".")):
            yield f"http.allowed_hosts: {shown(name)} is not allowed; give a name without a scheme and a port"


def http_warnings(http: HttpConfig) -> Iterator[str]:
    """A line for each option that opens what it should not, or has no effect."""
    if not http.listen:
        yield from (f"http.{option}: no effect without http.listen" for option in
                    ("token", "token_file", "cert_file", "key_file", "allowed_hosts") if getattr(http, option))
    elif not is_loopback(http.listen):
        if not http.token and not http.token_file:
            yield (f"http.listen: {http.listen} can be reached from other machines, and there is no http.token: "
                   "whoever reaches it sees metrics, status and configuration (without secrets)")
        elif not http.cert_file:
            yield (f"http.listen: {http.listen} can be reached from other machines, and there is no http.cert_file: "
                   "the token can be read on the way")


def address_of(listen: str) -> tuple[str, int]:
    """Host and port of `http.listen`; the default's for "auto"."""
    host, _, port = (AUTO_ADDRESS if listen == AUTO else listen).rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(listen: str) -> bool:
    """Whether only this machine can connect to an address. Names other than localhost count as reachable."""
    host, _ = address_of(listen)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def token_of(http: HttpConfig) -> str:
    """The token, from the configuration or its file; "" without one. Raises PipelineError."""
    if not http.token_file:
        return http.token
    try:
        with open(http.token_file, encoding="utf-8") as file:
            token = file.read(10_000).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise PipelineError(f"http.token_file: {http.token_file}: {why}") from None
    if not token:
        raise PipelineError(f"http.token_file: {http.token_file} is empty; write the token into it")
    if why := why_no_value(token):
        raise PipelineError(f"http.token_file: {http.token_file}: {why}")
    return token


def server_context(http: HttpConfig) -> "ssl.SSLContext":
    """The server's side of TLS. Raises PipelineError with the file that cannot be used."""
    # Imported here: every process reads the configuration, and few need it.
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for option, path in (("cert_file", http.cert_file), ("key_file", http.key_file)):
        if path and not os.access(path, os.R_OK):
            why = "cannot be read" if os.path.exists(path) else "does not exist"
            raise PipelineError(f"http.{option}: {path} {why}")
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(http.cert_file, http.key_file or None, password=lambda: "-")
    except (OSError, ValueError):
        key = f" with http.key_file {http.key_file}" if http.key_file else ""
        raise PipelineError(f"http.cert_file: {http.cert_file}{key} holds no certificate with its own, unencrypted key "
                            "in PEM form") from None
    return context


def _is_address(listen: str) -> bool:
    host, _, port = listen.rpartition(":")
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else "" if ":" in host else host
    return bool(name) and port.isascii() and port.isdigit() and 0 <= int(port[:6]) < 65_536 and not any(
        character in "/@[]?#\\" or not character.isprintable() or character.isspace() for character in name)
