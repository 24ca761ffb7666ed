"""Pipelines of all tests over another transport: IGGY_TEST_TRANSPORT is tcp, tls, websocket, websocket+tls or quic.

Tests name an Iggy by the address of its TCP listener; this gives what `[iggy]` of a pipeline has instead. For a real
server IGGY_TEST_TLS, IGGY_TEST_WEBSOCKET, IGGY_TEST_WEBSOCKET_TLS and IGGY_TEST_QUIC are the addresses of its other
listeners, and IGGY_TEST_CA is the file of the authority of their certificates. The sandbox has WebSocket, and no TLS
beside plain TCP: `test_iggy_transports.py` has that.
"""

import os
from types import MappingProxyType

from tests.support.iggy_servers import SERVER, WEBSOCKETS

TRANSPORT = os.environ.get("IGGY_TEST_TRANSPORT", "tcp")
#: Transport -> the variable with the real server's address.
_VARIABLES = MappingProxyType({
    "tls": "IGGY_TEST_TLS", "websocket": "IGGY_TEST_WEBSOCKET", "websocket+tls": "IGGY_TEST_WEBSOCKET_TLS",
    "quic": "IGGY_TEST_QUIC"})


def by_transport(address: str) -> str:
    """What stands between the quotation marks of `address = "..."` for the Iggy whose TCP listener is at `address`."""
    if TRANSPORT == "tcp" or not address:
        return address
    if address == SERVER:
        other, authority = os.environ[_VARIABLES[TRANSPORT]], os.environ.get("IGGY_TEST_CA", "")
    elif TRANSPORT == "websocket":
        other, authority = WEBSOCKETS.get(address, ""), ""
    else:
        other = authority = ""
    if not other:
        return address
    encrypted = TRANSPORT in ("tls", "websocket+tls") or TRANSPORT == "quic"
    tls = f'tls.ca_file = "{authority}"' if authority else "tls.validate_certificate = false" if encrypted else ""
    kind = {"tls": "tcp"}.get(TRANSPORT, TRANSPORT.partition("+")[0])
    return f'{other}"\ntransport = "{kind}"\n{tls}\n' + ("tls.enabled = true\n" if encrypted else "") + "#"
