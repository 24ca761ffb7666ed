"""The workloads by name: of JSON, other formats, messages that are not all good, and those that are changed first."""

import calendar
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pipeline.config.schema import MappingConfig, Precision, RuleConfig
from pipeline.testbed.workloads import changed, encoded, messages
from pipeline.testbed.workloads.plain import Message, PassingLoop, PlainLoop, flatten

#: When message 0 was made, microseconds since 1970, and the time between two.
FIRST_US: Final = 1_700_000_000_000_000
STEP_US: Final = 7_013
#: The names of all workloads.
NAMES: Final = (
    "flat", "optional_keys", "random_order", "zigbee2mqtt", "tasmota", "lorawan", "lorawan_gateways", "explode",
    "log_lines", "rules", "bucket_template", "declared_types", "wide", "four_shapes_mixed", "telegraf_json",
    "msgpack", "csv", "avro", "line_protocol", "one_percent_bad")

#: Those whose messages are changed before they are mapped, for which the aims of the others do not hold.
CHANGED: Final = ("steps", "jq", "function")

Make = Callable[[Random, int, int], bytes]


class Loop(Protocol):
    """A loop by hand."""

    def bodies(self, payloads: list[bytes]) -> dict[str, bytes]:
        """The lines of each bucket; "" is the configured one."""


class Workload(Struct, frozen=True, kw_only=True):
    """What a producer sends, and how it is mapped."""

    name: str
    #: In a few words.
    about: str
    mapping: MappingConfig
    #: Of the lines.
    precision: Precision = "ms"
    make: Make
    loop: Loop

    def message(self, number: int, time_us: int) -> bytes:
        """One message with a time, microseconds since 1970."""
        return self.make(Random(number), number, time_us)

    def payloads(self, first: int, count: int) -> list[bytes]:
        """So many messages, from number `first` on. The same numbers give the same messages."""
        random = Random(first)
        return [self.make(random, number, FIRST_US + number * STEP_US) for number in range(first, first + count)]


def workload(name: str, folder: Path) -> Workload:
    """The workload of one of NAMES or CHANGED; `folder` takes the files that its mapping names. Raises KeyError."""
    return {**_flat_ones(), **_nested_ones(), **_chosen_ones(), **_formats(folder, name), **_changed_ones()}[name]


def _timed(**options: Any) -> MappingConfig:
    """A mapping with the time in `ts`, milliseconds."""
    options = {"timestamp_from": "field", "timestamp_field": "ts", "timestamp_format": "epoch_ms"} | options
    return MappingConfig(**options)


_TAGGED: Final = {"site": "site", "device": "device"}


def _named(name: str, about: str, mapping: MappingConfig, make: Make, loop: Loop,
           precision: Precision = "ms") -> dict[str, Workload]:
    return {name: Workload(name=name, about=about, mapping=mapping, make=make, loop=loop, precision=precision)}


def _flat_ones() -> dict[str, Workload]:
    tagged, loop = _timed(tag_fields=("site", "device")), PlainLoop(tags=_TAGGED)
    device = _timed(tag_fields=("device",))
    return {
        **_named("flat", "8 keys, always the same", tagged, messages.flat, loop),
        **_named("optional_keys", "each field there with 70 %", tagged, messages.optional_keys, loop),
        **_named("random_order", "keys in random order", tagged, messages.random_order, loop),
        **_named("one_percent_bad", "1 % of the messages is bad", tagged, messages.one_percent_bad, loop),
        **_named("log_lines", "texts with escapes", _timed(tag_fields=("host", "level")), messages.log_lines,
                 PlainLoop(tags={"host": "host", "level": "level"})),
        **_named("wide", "100 fields", _timed(tag_fields=("machine",)), messages.wide,
                 PlainLoop(tags={"machine": "machine"})),
        **_named("four_shapes_mixed", "four kinds of devices", _timed(tag_fields=("type", "device")),
                 messages.four_shapes, PlainLoop(tags={"type": "type", "device": "device"})),
        **_named("declared_types", "numbers as texts", replace(device, types={
            "temperature": "float", "humidity": "float", "count": "integer", "errors": "integer", "door": "boolean"}),
            messages.texts, PlainLoop(tags={"device": "device"}, convert={
                "temperature": lambda text: text, "humidity": lambda text: text, "count": lambda text: f"{int(text)}i",
                "errors": lambda text: f"{int(text)}i", "door": lambda text: text})),
    }


def _nested_ones() -> dict[str, Workload]:
    uplink = MappingConfig(
        measurement_from="static", measurement_name="uplink", field_strategy="explicit",
        tag_fields=("end_device_ids.device_id",), tag_renames={"end_device_ids.device_id": "device"},
        field_names=("uplink_message.decoded_payload.temperature", "uplink_message.decoded_payload.moisture",
                     "uplink_message.decoded_payload.battery", "uplink_message.f_cnt"),
        field_renames={f"uplink_message.decoded_payload.{name}": name for name in (
            "temperature", "moisture", "battery")} | {"uplink_message.f_cnt": "f_cnt"},
        timestamp_from="field", timestamp_field="received_at", timestamp_format="rfc3339")
    gateways = "uplink_message.rx_metadata"
    by_gateway = replace(
        uplink, explode=gateways, tag_fields=(*uplink.tag_fields, f"{gateways}.gateway_ids.gateway_id"),
        tag_renames={**uplink.tag_renames, f"{gateways}.gateway_ids.gateway_id": "gateway"},
        field_names=(f"{gateways}.rssi", f"{gateways}.snr"), field_renames={f"{gateways}.{name}": name
                                                                            for name in ("rssi", "snr")})
    ids = {"end_device_ids_device_id": "device"}
    decoded = "uplink_message_decoded_payload_"
    return {
        **_named("zigbee2mqtt", "nested, null now and then, RFC 3339", MappingConfig(
            tag_fields=("device.friendlyName",), tag_renames={"device.friendlyName": "device"}, timestamp_from="field",
            timestamp_field="last_seen", timestamp_format="rfc3339"), messages.zigbee2mqtt,
            PlainLoop(tags={"device_friendlyName": "device"}, time_key="last_seen", read_time=_iso_ms)),
        **_named("tasmota", "nested, strptime", MappingConfig(
            tag_fields=("Hostname",), timestamp_from="field", timestamp_field="Time",
            timestamp_format="%Y-%m-%dT%H:%M:%S"), messages.tasmota,
            PlainLoop(tags={"Hostname": "Hostname"}, time_key="Time", read_time=_strptime_s), "s"),
        **_named("lorawan", "an uplink, four fields of it", uplink, messages.lorawan, PlainLoop(
            measurement="uplink", tags=ids, time_key="received_at", read_time=_rfc3339_ns,
            decode=_renaming({decoded + name: name for name in ("temperature", "moisture", "battery")} | {
                "uplink_message_f_cnt": "f_cnt"}),
            fields=("temperature", "moisture", "battery", "f_cnt")), "ns"),
        **_named("lorawan_gateways", "the same, a point a gateway", by_gateway, messages.lorawan_gateways, PlainLoop(
            measurement="uplink", tags={**ids, "gateway_ids_gateway_id": "gateway"}, time_key="received_at",
            read_time=_rfc3339_ns, explode=gateways, fields=("rssi", "snr")), "ns"),
        **_named("explode", "8 points a message", _timed(
            tag_fields=("device", "samples.sensor"), explode="samples", tag_renames={"samples.sensor": "sensor"}),
            messages.explode, PlainLoop(tags={"device": "device", "sensor": "sensor"}, explode="samples")),
        **_named("telegraf_json", "Telegraf's own JSON", _timed(
            measurement_from="field", measurement_field="name", tag_map_field="tags", timestamp_field="timestamp"),
            messages.telegraf, PlainLoop(name_key="name", tags_prefix="tags_", time_key="timestamp")),
    }


def _chosen_ones() -> dict[str, Workload]:
    def by_rules(point: Message) -> tuple[str, str] | None:
        if point["state"] == "test":
            return None
        return ("hot", "") if point["temperature"] > 25 else ("sensors", "")

    allowed = tuple([f"bucket-t{number}" for number in range(8)])
    return {
        **_named("rules", "drop and route by conditions", _timed(tag_fields=("site", "device"), rules=(
            RuleConfig(when="state == 'test'", then="drop"), RuleConfig(when="temperature > 25", measurement="hot"))),
            messages.states, PlainLoop(tags=_TAGGED, route=by_rules)),
        **_named("bucket_template", "a bucket a tenant", _timed(
            tag_fields=("site", "device"), bucket_template="bucket-{tenant}", allowed_buckets=allowed),
            messages.tenants,
            PlainLoop(tags=_TAGGED, route=lambda point: ("sensors", f"bucket-{point['tenant']}"))),
    }


def _changed_ones() -> dict[str, Workload]:
    return {
        **_named("steps", "an envelope, by six steps", changed.steps_mapping(), changed.envelope, changed.steps_loop()),
        **_named("jq", "the flat message, by a program of jq", changed.jq_mapping(), messages.flat, changed.jq_loop()),
        **_named("function", "the flat message, by a function", changed.function_mapping(), messages.flat,
                 changed.function_loop()),
    }


def _formats(folder: Path, name: str) -> dict[str, Workload]:
    found = {
        **_named("msgpack", "the flat message as MessagePack", _timed(tag_fields=("site", "device"), format="msgpack"),
                 encoded.msgpack, PlainLoop(tags=_TAGGED, decode=msgspec.msgpack.decode)),
        **_named("csv", "the flat message as CSV", _timed(
            tag_fields=("site", "device"), format="csv", csv_header=encoded.COLUMNS), encoded.csv,
            PlainLoop(tags=_TAGGED, decode=encoded.csv_reader)),
        **_named("line_protocol", "the flat message as a line", MappingConfig(
            format="line_protocol", line_protocol_precision="ms"), encoded.line_protocol, PassingLoop()),
    }
    if name == "avro":
        found |= _named("avro", "the flat message as Avro", _timed(
            tag_fields=("site", "device"), format="avro", avro_schema=encoded.avro_schema(folder)),
            encoded.avro_writer(), PlainLoop(tags=_TAGGED, decode=encoded.avro_reader()))
    return found


def _renaming(names: dict[str, str]) -> Callable[[bytes], Message]:
    """Decodes and flattens, and calls some keys otherwise."""
    def decode(payload: bytes) -> Message:
        point = flatten(msgspec.json.decode(payload))
        for key, name in names.items():
            if key in point:
                point[name] = point.pop(key)
        return point

    return decode


def _iso_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


def _rfc3339_ns(text: str) -> int:
    """Nanoseconds: Python's own reads six digits of a fraction only."""
    second, fraction = text.rstrip("Z").split(".")
    return round(datetime.fromisoformat(second).replace(tzinfo=UTC).timestamp()) * 1_000_000_000 + int(
        fraction.ljust(9, "0"))


def _strptime_s(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
