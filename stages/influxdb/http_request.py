"""What is sent for one HTTP request, to a server or to a proxy. Pure."""

import base64
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pipeline.config.connection_schema import ConnectionConfig
from stages.influxdb.http_answer import HttpFault

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def split_url(url: str) -> SplitResult:
    """The parts of a server's URL. Raises HttpFault."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise HttpFault("url", f"it is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise HttpFault("url", "it is not the URL of a server")
    return parts


def target_of(parts: SplitResult, config: ConnectionConfig) -> str:
    """The request target: the path, or the whole URL for a proxy that forwards the request."""
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
    return f"http://{netloc(parts)}{path}" if config.proxy and parts.scheme == "http" else path


def headers_of(parts: SplitResult, config: ConnectionConfig, given: Mapping[str, str]) -> dict[str, str]:
    """All headers. Those of the configuration replace the `given` ones, except for Authorization."""
    headers = {"host": netloc(parts), "accept-encoding": "identity"}
    if config.username and not (config.token or config.token_file):
        headers["authorization"] = _basic(config.username, config.password)
    if config.proxy and parts.scheme == "http":
        headers |= proxy_headers(proxy_parts(config.proxy))
    given = {name.lower(): value for name, value in given.items()}
    headers |= given | {name.lower(): value for name, value in config.headers.items()}
    if "authorization" in given:
        headers["authorization"] = given["authorization"]
    return {name.title(): value for name, value in headers.items()}


def request_head(method: str, target: str, headers: Mapping[str, str], length: int | None) -> bytes:
    """Request line and headers. Raises HttpFault for a header that can't be sent, without its value."""
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            what = "the token, user or password" if name.endswith("Authorization") else f"the header {ascii(name)}"
            raise HttpFault("header", f"{what} has a character (such as a line break) that HTTP headers can't have")
        lines.append(f"{name}: {value}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    try:
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
    except UnicodeEncodeError:
        raise HttpFault("url", "it has characters that a URL can't have") from None


def proxy_parts(proxy: str) -> SplitResult:
    """The parts of a proxy's URL, whose http:// may be missing. Raises HttpFault."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme == "http" and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise HttpFault("proxy", "the configured proxy is not a URL such as http://host:port")


def proxy_headers(proxy: SplitResult) -> dict[str, str]:
    """The proxy's user and password, if its URL has them."""
    if proxy.username is None:
        return {}
    return {"Proxy-Authorization": _basic(unquote(proxy.username), unquote(proxy.password or ""))}


def netloc(parts: SplitResult) -> str:
    """host:port of a URL, without credentials; names outside of ASCII in their IDNA form. Raises HttpFault."""
    try:
        host = (parts.hostname or "").encode("idna").decode() if not (parts.hostname or "").isascii() \
            else parts.hostname or ""
    except UnicodeError:
        raise HttpFault("url", "its host is not a valid name") from None
    return bracketed(host) + (f":{parts.port}" if parts.port is not None else "")


def bracketed(host: str) -> str:
    """A host as it stands before a port: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
