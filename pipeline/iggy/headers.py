"""User headers of messages, as texts: for tags and for dead letters."""

from apache_iggy import ReceiveMessage, UserHeaders


def header_values(message: ReceiveMessage, names: tuple[str, ...]) -> tuple[str, ...]:
    """The values of a message's user headers as texts; "" for one that is missing, or cannot be read."""
    headers = headers_of(message)
    return tuple([headers.get(name, "") for name in names])


def headers_of(message: ReceiveMessage) -> dict[str, str]:
    """A message's user headers as texts; none where they cannot be read."""
    try:
        headers = (message.user_headers() or UserHeaders()).to_scalar_dict()
        return {header_text(name): header_text(value) for name, value in headers.items()}
    except Exception:  # a producer may send anything, and the client may say anything of it; ingest has to go on
        return {}


def header_text(value: str | bytes | bool | int | float) -> str:
    """A header's value as a tag has it: true and false in lower case, bytes as the UTF-8 that they may be."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
