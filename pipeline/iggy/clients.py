"""The `apache-iggy` client for each transport, with its own reconnection off."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from apache_iggy import (
    AutoLogin,
    IggyClient,
    QuicConfig,
    QuicReconnectionConfig,
    TcpConfig,
    TcpReconnectionConfig,
    WebSocketConfig,
    WebSocketFramingConfig,
    WebSocketReconnectionConfig,
)

from pipeline.config.iggy_schema import IggyConfig, host_of

#: Largest answer over QUIC and WebSocket, bytes: the default of the server's `message_bus.max_message_size`, and some.
#: The client's own limits are lower: 10 MB over QUIC, 16 MiB over WebSocket.
ANSWER_BYTES = (64 << 20) + 65_536
#: Windows of flow control over QUIC, bytes: as the server's own. The client's default of 100,000 would make a poll of
#: some megabytes wait for dozens of round trips.
QUIC_WINDOW_BYTES = 64 << 20
#: Variable with the number of threads of the client's runtime, tokio, which has one for each core by default. They wake
#: each other up for each request; one alone does it with two thirds of the context switches.
THREADS = "TOKIO_WORKER_THREADS"
#: Variable that names the authorities for QUIC, whose client has no option for a file.
AUTHORITIES = "SSL_CERT_FILE"


def new_client(config: IggyConfig, address: str, login: AutoLogin, verify: bool | None = None) -> IggyClient:
    """A client for one server that is not connected yet. `verify`: instead of `tls.validate_certificate`.

    Raises ValueError for an address that the client does not understand, and RuntimeError if it cannot be made.
    """
    os.environ.setdefault(THREADS, "1")  # read once, with the first client
    tls = config.tls
    domain = server_name(config, address)
    verify = tls.validate_certificate if verify is None else verify
    if config.transport == "tcp":
        return IggyClient(TcpConfig(
            server_address=address, auto_login=login, nodelay=True, reconnection=TcpReconnectionConfig(enabled=False),
            tls_enabled=tls.enabled, tls_domain=domain, tls_ca_file=tls.ca_file or None,
            tls_validate_certificate=verify))
    if config.transport == "websocket":
        return IggyClient(WebSocketConfig(
            server_address=address, auto_login=login, reconnection=WebSocketReconnectionConfig(enabled=False),
            tls_enabled=tls.enabled, tls_domain=domain, tls_ca_file=tls.ca_file or None,
            tls_validate_certificate=verify,
            framing=WebSocketFramingConfig(max_message_size=ANSWER_BYTES, max_frame_size=ANSWER_BYTES)))
    with _authorities(tls.ca_file):
        return IggyClient(QuicConfig(
            server_address=address, server_name=domain, auto_login=login, validate_certificate=verify,
            reconnection=QuicReconnectionConfig(enabled=False), response_buffer_size=ANSWER_BYTES,
            send_window=QUIC_WINDOW_BYTES, receive_window=QUIC_WINDOW_BYTES))


def server_name(config: IggyConfig, address: str) -> str:
    """The name that the certificate of the server at `address` has to be for."""
    return config.tls.domain or host_of(address)


@contextmanager
def _authorities(ca_file: str) -> Iterator[None]:
    """Names the file of authorities while a QUIC client is made, which reads it then."""
    before = os.environ.get(AUTHORITIES)
    if ca_file:
        os.environ[AUTHORITIES] = ca_file
    try:
        yield
    finally:
        if ca_file and before is None:
            del os.environ[AUTHORITIES]
        elif ca_file and before is not None:
            os.environ[AUTHORITIES] = before
