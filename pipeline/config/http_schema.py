"""The schema of `[http]`: where the pipeline answers what it does. See `pipeline.config.schema`."""

from typing import Final

from msgspec import Struct

from pipeline.config.scalars import FilePath, NonEmpty

#: `http.listen` = "auto": this address, if its port is free.
AUTO: Final = "auto"
AUTO_ADDRESS: Final = "127.0.0.1:17109"


class HttpConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[http]`: where health, metrics and status are served. The local socket of the commands needs no options."""

    #: host:port to listen on. "auto" is 127.0.0.1:17109; if that port is in use, a warning is logged and the pipeline
    #: runs without. "" disables the port.
    listen: str = AUTO
    #: Whoever sends this token may see everything; without it only health is answered, as one word. "": no token is
    #: needed, and payloads of dead letters are shown to nobody. Sent as `Authorization: Bearer TOKEN`, or as the
    #: password of any user.
    token: str = ""
    #: File that holds the token; read once, at the start.
    token_file: FilePath = ""
    #: PEM file of the server's certificate, with those of intermediate authorities: then TLS is spoken, and nothing
    #: else.
    cert_file: FilePath = ""
    #: PEM file of the certificate's key, not encrypted; "" if it is in `cert_file`.
    key_file: FilePath = ""
    #: Names, without port, by which browsers and Prometheus may address the server, beside IP addresses, the name of
    #: this machine, and names that no public DNS can have. It protects from DNS rebinding; with a token, it is not
    #: needed.
    allowed_hosts: tuple[NonEmpty, ...] = ()
