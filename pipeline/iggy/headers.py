"""User headers of messages as texts, for tags and dead letters."""

from apache_iggy import ReceiveMessage, UserHeaders

from pipeline.about import About, header_texts


def header_values(message: ReceiveMessage, names: tuple[str, ...]) -> tuple[str, ...]:
    """The values of a message's user headers as texts; "" for one that is missing or cannot be read.

    `pipeline.about.EVERYTHING` among the names stands for all that is known of the message.
    """
    return header_texts(names, About(message.timestamp(), message.origin_timestamp(), headers_of(message)))


def headers_of(message: ReceiveMessage) -> dict[str, str]:
    """A message's user headers as texts; none where they cannot be read."""
    try:
        headers = (message.user_headers() or UserHeaders()).to_scalar_dict()
        return {header_text(name): header_text(value) for name, value in headers.items()}
    except Exception:  # producers may send anything, and the client may raise anything; ingest must continue
        return {}


def header_text(value: str | bytes | bool | int | float) -> str:
    """A header's value as text: true and false in lower case, bytes decoded as UTF-8."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
