"""Which keys hold secrets, by their names. Pure."""

import re
from typing import Final

_INDEX: Final = re.compile(r"\[[0-9]+\]")
#: Last parts of keys whose values are secret. A path of a file that holds a secret is none.
_SECRET: Final = re.compile(r"(.*_)?(password|passphrase|token|secret|api_key|private_key|connection_string)s?",
                            re.IGNORECASE)
#: Names of headers whose values are secret.
SECRET_HEADER: Final = re.compile(r"auth|cookie|token|key|secret|passw|credential|signature|session", re.IGNORECASE)
#: User and password, or a token, in a URL.
_PASSWORD: Final = re.compile(r"//(?:([^/@:\s]*):[^/@\s]+|[^/@:\s]+)@")


def is_secret(key: str) -> bool:
    """Whether a key such as "sinks[0].influxdb.token" or "influxdb.headers.Authorization" holds a secret."""
    table, _, name = _INDEX.sub("", key).rpartition(".")
    if table.rpartition(".")[2] == "headers" and "output" not in table:
        return bool(SECRET_HEADER.search(name))
    return bool(_SECRET.fullmatch(name))


def url_password(text: str) -> bool:
    """Whether a text is a URL with a password in it."""
    return bool(_PASSWORD.search(text))


def without_password(text: str) -> str:
    """A URL without the password in it."""
    return _PASSWORD.sub(lambda match: "//***@" if match[1] is None else f"//{match[1]}:***@", text)
