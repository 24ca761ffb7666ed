"""Compares addresses of servers that may be spelled in several ways."""

import contextlib
import ipaddress
import socket


def names_of(address: str) -> list[str]:
    """All names of the server at "host:port": the given one, and each IP address that it resolves to now.

    All addresses of this machine are "localhost". Two addresses mean the same server if their lists have a name in
    common (except for different servers on the same port of different addresses of this machine). Uses the system's
    resolver.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]").rstrip(".").lower()
    port = str(int(port)) if port.isascii() and port.isdigit() else port
    hosts = {host}
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        found = set()
    for text in found:
        hosts.add("localhost" if _is_local(text) else text)
    return [f"{name}:{port}" for name in sorted(hosts)]


def _is_local(text: str) -> bool:
    """Whether an IP address belongs to this machine: whether a socket can be bound to it."""
    ip = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback or ip.is_unspecified:
        return True
    with contextlib.suppress(OSError), socket.socket(
            socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind((str(ip), 0))
        return True
    return False
