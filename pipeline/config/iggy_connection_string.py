"""Connection strings as Iggy's clients take them: `iggy+tcp://user:password@host:8090?tls=true`. Pure.

Source: `connection_string.rs` of apache/iggy. The user may be a personal access token. Nothing is percent-encoded.
"""

import re
from types import MappingProxyType
from typing import Any, Final

from msgspec.structs import replace

from pipeline.config.iggy_schema import IggyConfig, IggyTlsConfig

KEY: Final = "iggy.connection_string"
#: Beginning -> transport.
_SCHEMES: Final = MappingProxyType({"iggy": "tcp", "iggy+tcp": "tcp", "iggy+quic": "quic", "iggy+ws": "websocket"})
_SYNTAX: Final = re.compile(r"(?P<scheme>[^:/?@]+)://(?P<login>.+)@(?P<address>[^@?/]+)(\?(?P<options>.*))?")
#: Option -> key of `[iggy.tls]`.
_TLS: Final = MappingProxyType({"tls": "enabled", "tls_domain": "domain", "tls_ca_file": "ca_file",
                                "tls_validate_certificate": "validate_certificate",
                                "validate_certificate": "validate_certificate"})
_FORM: Final = "give iggy+tcp://user:password@host:port, or iggy+tcp://token@host:port"
#: Keys that a connection string stands for.
_REPLACED: Final = ("address", "addresses", "transport", "username", "password", "password_file", "token",
                    "token_file", "tls")


def expanded(iggy: IggyConfig) -> tuple[IggyConfig, list[str]]:
    """`[iggy]` with the keys that its connection string stands for, and without it; and what is wrong with it.

    No mistake quotes the string: it holds a password.
    """
    if not iggy.connection_string:
        return iggy, []
    default = IggyConfig()
    problems = [f"iggy.{key}: not beside connection_string, which has it" for key in _REPLACED
                if getattr(iggy, key) != getattr(default, key)]
    found = _SYNTAX.fullmatch(iggy.connection_string)
    if found is None:
        return replace(iggy, connection_string=""), [*problems, f"{KEY}: is none; {_FORM}"]
    transport = _SCHEMES.get(found["scheme"])
    if transport is None:
        problems.append(f"{KEY}: begins with {found['scheme'][:20]}://; give iggy+tcp://, iggy+quic:// or iggy+ws://"
                        + (" (the pipeline cannot use Iggy's HTTP API)" if found["scheme"] == "iggy+http" else ""))
    user, colon, password = found["login"].partition(":")
    if colon and not (user and password):
        problems.append(f"{KEY}: has no user or no password; {_FORM}")
    login: dict[str, Any] = {"username": user, "password": password} if colon else {"token": user}
    tls, wrong = _tls_options(found["options"] or "")
    return replace(iggy, connection_string="", address=found["address"], transport=transport or "tcp", tls=tls,
                   **login), problems + wrong


def _tls_options(text: str) -> tuple[IggyTlsConfig, list[str]]:
    options: dict[str, Any] = {}
    problems = []
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        key = _TLS.get(name)
        if key is None:
            problems.append(f"{KEY}: the option {name[:40]} is not used by the pipeline, which reconnects in its own "
                            f"way; remove it. Used are {', '.join(_TLS)}")
        elif key in ("domain", "ca_file"):
            options[key] = value
        elif value in ("true", "false"):
            options[key] = value == "true"
        else:
            problems.append(f"{KEY}: {name} is true or false")
    return IggyTlsConfig(**options), problems
