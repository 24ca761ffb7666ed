"""The effective configuration without its secrets, to be shown. Pure."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from pipeline.config.schema import Config
from pipeline.config.secrets import secrets_of

#: What stands in place of a secret.
HIDDEN: Final = "(hidden)"
#: Keys whose values are secret, wherever they are. All values of `headers` are, too.
_SECRET: Final = frozenset({"password", "token", "connection_string"})
#: Keys that are not shown: messages of test cases.
_LEFT_OUT: Final = frozenset({"tests"})


def shown_config(config: Config) -> dict[str, Any]:
    """Every table and key with its value; secrets are HIDDEN."""
    found = _shown(msgspec.to_builtins(config), "", secrets_of(config))
    assert isinstance(found, dict)
    return found


def _shown(value: object, key: str, secrets: set[str]) -> object:
    if isinstance(value, Mapping):
        return {str(name): _shown(item, "password" if key == "headers" else str(name), secrets)
                for name, item in value.items() if key or name not in _LEFT_OUT}
    if isinstance(value, list | tuple):
        return [_shown(item, key, secrets) for item in value]
    if not isinstance(value, str) or not value:
        return value
    value = _without_user(value) if "://" in value and "@" in value else value
    return HIDDEN if key in _SECRET or any(secret in value for secret in secrets) else value


def _without_user(url: str) -> str:
    try:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{HIDDEN}@{parts.netloc.rpartition('@')[2]}")) \
            if "@" in parts.netloc else url
    except ValueError:
        return HIDDEN
