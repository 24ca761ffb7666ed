"""How Iggy is reached: `[iggy]` and `[iggy.tls]`."""

import ipaddress
from types import MappingProxyType
from typing import Final, Literal

from msgspec import Struct

from pipeline.config.scalars import FilePath, Milliseconds, NonEmpty

Transport = Literal["tcp", "quic", "websocket"]
#: Ports of Iggy's listeners, unless its configuration says otherwise.
DEFAULT_PORTS: Final = MappingProxyType({"tcp": 8090, "quic": 8080, "websocket": 8092})
DEFAULT_USER: Final = "iggy"


class IggyTlsConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[iggy.tls]`: encryption of the connections to Iggy, and how its certificate is verified.

    With transport = "quic" everything is encrypted, whatever `enabled` is; the other options count there, too.
    """

    #: Encrypt the connections, with transport = "tcp" and "websocket".
    enabled: bool = False
    #: PEM file of the certificate authority that the server's certificate is verified with; "": the public authorities
    #: (with "quic": those of the operating system).
    ca_file: FilePath = ""
    #: Name that the certificate has to be for; "": the host of the address. Give it where the address is not in the
    #: certificate, or for a cluster of which each node has the same certificate.
    domain: str = ""
    #: false accepts any certificate: traffic can then be intercepted and altered. Set `ca_file` instead.
    validate_certificate: bool = True


class IggyConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[iggy]`: the server to read from, and the pipeline's user and consumer there."""

    #: host:port of the server's listener for `transport`; the default is 127.0.0.1 and Iggy's port for it: 8090 with
    #: "tcp", 8080 with "quic", 8092 with "websocket".
    address: str = ""
    #: Several servers of one cluster, instead of `address`: the next one is used when one is lost.
    addresses: tuple[NonEmpty, ...] = ()
    #: All of it in one text, as Iggy's clients take it, instead of address, transport, user, password or token, and
    #: tls: "iggy+tcp://user:password@host:8090?tls=true&tls_ca_file=ca.pem". It begins with iggy+tcp://, iggy+quic://
    #: or iggy+ws://; a token may stand in place of user and password.
    connection_string: str = ""
    #: Protocol below Iggy's. All three can do everything; "tcp" costs least.
    transport: Transport = "tcp"
    #: User of Iggy.
    username: NonEmpty = DEFAULT_USER
    #: Password of that user.
    password: str = DEFAULT_USER
    #: File that holds the password, instead of `password`; read again for each login.
    password_file: FilePath = ""
    #: Personal access token of Iggy, instead of `username` and `password`.
    token: str = ""
    #: File that holds the token, instead of `token`; read again for each login.
    token_file: FilePath = ""
    #: Encryption.
    tls: IggyTlsConfig = IggyTlsConfig()
    #: Name under which the offsets are stored (an individual consumer of Iggy).
    consumer: NonEmpty = "pipeline"
    #: A consumer group, instead of `consumer`: Iggy assigns the partitions to all pipelines that name it.
    consumer_group: str = ""
    #: Longest wait for any answer; after that the connection is closed and made again.
    call_timeout_ms: Milliseconds = 15_000

    def servers(self) -> tuple[str, ...]:
        """host:port of each server, in the order of the configuration; at least one."""
        return self.addresses or (self.address or f"127.0.0.1:{DEFAULT_PORTS[self.transport]}",)

    def label(self) -> str:
        """The servers, for people."""
        return ", ".join(self.servers())

    def is_encrypted(self) -> bool:
        """Whether the connections are encrypted."""
        return self.tls.enabled or self.transport == "quic"

    def has_token(self) -> bool:
        """Whether the login is by a personal access token."""
        return bool(self.token or self.token_file)


def host_of(address: str) -> str:
    """The host in host:port, without the brackets of IPv6."""
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")


def is_loopback(address: str) -> bool:
    """Whether host:port is certainly on this machine: localhost, 127.0.0.0/8, ::1. No name is resolved."""
    host = host_of(address)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
