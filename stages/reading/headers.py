"""User headers of messages, as tags have them."""

from apache_iggy import ReceiveMessage, UserHeaders


def header_values(message: ReceiveMessage, names: tuple[str, ...]) -> tuple[str, ...]:
    """The values of a message's user headers as texts; "" for one that is missing, or cannot be read."""
    try:
        headers = (message.user_headers() or UserHeaders()).to_scalar_dict()
    except ValueError:
        headers = {}
    return tuple([header_text(headers.get(name, "")) for name in names])


def header_text(value: str | bytes | bool | int | float) -> str:
    """A header's value as a tag has it: true and false in lower case, bytes as the UTF-8 that they may be."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
