"""Workloads whose messages are changed before they are mapped: by steps, a program of jq, a Python function."""

from random import Random
from typing import Any, Final

import msgspec

from pipeline.api import JsonObject
from pipeline.api import Message as About
from pipeline.config.schema import MappingConfig
from pipeline.config.steps_schema import AnyStep, LookupStep, ParseStep, RenameStep, ScaleStep, SplitStep, UnwrapStep
from pipeline.testbed.workloads.messages import DEVICES, to_json
from pipeline.testbed.workloads.plain import Message, PlainLoop

#: Of the flat message.
TAGS: Final = {"site": "site", "device": "device"}
STEPS: Final[tuple[AnyStep, ...]] = (
    UnwrapStep(path="data", keep=("source", "time")),
    SplitStep(from_="source", to=("", "site", "device")),
    ScaleStep(path="temp_raw", factor=0.1, offset=-273.15),
    RenameStep(names={"temp_raw": "temp"}),
    ParseStep(path="hum", as_="number"),
    LookupStep(path="state", values={"OFF": 0, "ON": 1}),
)
JQ: Final = "del(.ok) | .battery += 1"
_TIMED: Final[dict[str, Any]] = {
    "timestamp_from": "field", "timestamp_format": "epoch_ms", "tag_fields": ("site", "device")}


def envelope(random: Random, number: int, time_us: int) -> bytes:
    """A CloudEvent with a raw value, a number with its unit, and a word."""
    return to_json({
        "specversion": "1.0", "id": f"{number:08x}", "source": f"/plant-{number % 5}/dev-{number % DEVICES:04d}",
        "type": "reading", "time": time_us // 1_000, "data": {
            "temp_raw": random.randrange(2_500, 3_200), "hum": f"{random.randrange(20, 80)} %",
            "state": random.choice(("ON", "OFF")), "rpm": random.randrange(3_000)}})


def steps_mapping() -> MappingConfig:
    """The mapping of `envelope`."""
    return MappingConfig(timestamp_field="time", steps=STEPS, exclude_fields=("source",), **_TIMED)


def jq_mapping() -> MappingConfig:
    """The flat message, changed by jq."""
    return MappingConfig(timestamp_field="ts", jq=JQ, **_TIMED)


def function_mapping() -> MappingConfig:
    """The flat message, changed by `fahrenheit`."""
    return MappingConfig(timestamp_field="ts", transform=f"{__name__}:fahrenheit", **_TIMED)


def fahrenheit(message: JsonObject, about: About) -> JsonObject:
    """Adds a value that is calculated."""
    message["fahrenheit"] = message["temperature"] * 1.8 + 32
    return message


def steps_loop() -> PlainLoop:
    """The steps by hand."""
    def decode(payload: bytes) -> Message:
        event = msgspec.json.decode(payload)
        data: Message = event["data"]
        _, site, device = event["source"].split("/")
        temp = data.pop("temp_raw") * 10 - 27_315
        data["temp"] = temp // 100 if temp % 100 == 0 else temp / 100
        data["hum"] = int(data["hum"].split(" ")[0])
        data["state"] = 1 if data["state"] == "ON" else 0
        return data | {"site": site, "device": device, "time": event["time"]}

    return PlainLoop(tags=TAGS, decode=decode, time_key="time")


def jq_loop() -> PlainLoop:
    """The program by hand."""
    def decode(payload: bytes) -> Message:
        message: Message = msgspec.json.decode(payload)
        del message["ok"]
        message["battery"] += 1
        return message

    return PlainLoop(tags=TAGS, decode=decode)


def function_loop() -> PlainLoop:
    """The function in the loop."""
    def decode(payload: bytes) -> Message:
        message: dict[str, Any] = msgspec.json.decode(payload)
        message["fahrenheit"] = message["temperature"] * 1.8 + 32
        return message

    return PlainLoop(tags=TAGS, decode=decode)
