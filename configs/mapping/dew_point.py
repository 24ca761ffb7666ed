"""The function of function.toml: adds the dew point to readings of temperature and humidity."""

import math

from pipeline.api import JsonObject, Message


def add_dew_point(message: JsonObject, about: Message) -> JsonObject | list[JsonObject] | None:
    """Several messages of one with rooms, none of one that only says that its sender is alive."""
    if "alive" in message:
        return None
    if "rooms" in message:
        return [{"room": name, **values} for name, values in message["rooms"].items()]
    if "hum" in message:
        message["dew_point"] = round(dew_point(message["temp"], message["hum"]), 2)
    return message


def dew_point(celsius: float, percent: float) -> float:
    """By the Magnus formula. Raises ValueError for air without any water."""
    gamma = math.log(percent / 100) + 17.62 * celsius / (243.12 + celsius)
    return 243.12 * gamma / (17.62 - gamma)
