"""Addresses of servers by names that two spellings of one have in common."""

import contextlib
import ipaddress
import socket


def names_of(address: str) -> list[str]:
    """All names of the server at "host:port": as it is spelled, and by each IP address that the name has now.

    All addresses of this machine are "localhost". So two configurations mean the same server if a name is in both lists
    (but for different servers at one port of this machine's addresses). Asks the system's resolver.
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
    """Whether an IP address is one of this machine: then a socket can be bound to it."""
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
