"""Generators of messages: one function for each kind of producer.

Each takes a source of random numbers, the message's number, and its time in microseconds since 1970.
"""

import json
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

#: Devices that take turns.
DEVICES: Final = 500
_TOKENS: Final = ("GET", "POST", "/api/v1/items", "timeout", "user=4711", "retry", "connection reset", "ok", "café")
_FLAT_KEYS: Final = ("temperature", "humidity", "pressure", "battery", "rssi", "voltage")


def to_json(message: Any) -> bytes:
    """Compact JSON, as most producers write it."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def rfc3339(time_us: int, timespec: str = "milliseconds") -> str:
    """A time in UTC, as JavaScript writes it."""
    time = datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)
    return time.isoformat(timespec=timespec).replace("+00:00", "Z")


def flat_message(random: Random, number: int, time_us: int) -> dict[str, Any]:
    """Two tags, five fields, a time in milliseconds."""
    return {"site": f"site-{number % 5}", "device": f"dev-{number % DEVICES:04d}",
            "temperature": round(random.gauss(21, 4), 2), "humidity": round(random.uniform(20, 80), 1),
            "pressure": round(random.uniform(980, 1040), 2), "battery": random.randrange(101),
            "ok": random.random() < 0.98, "ts": time_us // 1_000}


def flat(random: Random, number: int, time_us: int) -> bytes:
    """The message of the other benchmarks: one key order, no optional key."""
    return to_json(flat_message(random, number, time_us))


def optional_keys(random: Random, number: int, time_us: int) -> bytes:
    """Each field is there in 70 % of the messages, each on its own."""
    message: dict[str, Any] = {"site": f"site-{number % 5}", "device": f"dev-{number % DEVICES:04d}"}
    message |= {key: round(random.uniform(0, 100), 2) for key in _FLAT_KEYS if random.random() < 0.7}
    return to_json(message | {"uptime": number, "ts": time_us // 1_000})


def random_order(random: Random, number: int, time_us: int) -> bytes:
    """The flat message with its keys in an order of its own each time, as hash maps write them."""
    items = list(flat_message(random, number, time_us).items())
    random.shuffle(items)
    return to_json(dict(items))


def zigbee2mqtt(random: Random, number: int, time_us: int) -> bytes:
    """A sensor's state with the device in it; values are null until they are first reported."""
    device = number % DEVICES
    version = random.randrange(587_814_449, 587_814_459)
    return to_json({
        "battery": random.randrange(101) if random.random() < 0.95 else None,
        "device": {"applicationVersion": 5, "dateCode": "20191130", "friendlyName": f"0x00158d00{device:08x}",
                   "manufacturerID": 4447, "manufacturerName": "LUMI", "model": "WSDCGQ11LM", "networkAddress": device,
                   "powerSource": "Battery", "type": "EndDevice", "zclVersion": 1},
        "humidity": round(random.uniform(20, 80), 2), "last_seen": rfc3339(time_us),
        "linkquality": random.randrange(256), "pressure": round(random.uniform(980, 1040), 1),
        "temperature": round(random.gauss(21, 4), 2) if random.random() < 0.97 else None,
        "update": {"installed_version": version, "latest_version": version, "state": "idle"}
        if random.random() < 0.9 else None, "voltage": random.randrange(2_600, 3_100)})


def tasmota(random: Random, number: int, time_us: int) -> bytes:
    """A plug's telemetry; its time is local, in whole seconds."""
    power = random.randrange(2_300)
    return to_json({
        "Time": f"{datetime.fromtimestamp(time_us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%S}",
        "Hostname": f"tasmota-{number % DEVICES:04d}", "Uptime": "5T01:02:03",
        "ENERGY": {"TotalStartTime": "2023-03-05T09:11:12", "Total": round(1_000 + number / 1_000, 3),
                   "Yesterday": round(random.uniform(0, 9), 3), "Today": round(random.uniform(0, 9), 3),
                   "Period": random.randrange(30), "Power": power, "ApparentPower": power + 12,
                   "ReactivePower": random.randrange(90), "Factor": round(random.uniform(0.8, 1), 2),
                   "Voltage": random.randrange(225, 240), "Current": round(power / 230, 3)},
        "Wifi": {"AP": 1, "SSId": "things", "RSSI": random.randrange(40, 100), "Signal": -random.randrange(40, 90)}})


def _uplink(random: Random, number: int, time_us: int, gateways: int) -> bytes:
    device = number % DEVICES
    received = rfc3339(time_us, "microseconds").replace("Z", f"{random.randrange(1_000):03d}Z")
    return to_json({
        "end_device_ids": {"device_id": f"eui-{device:06x}", "application_ids": {"application_id": "field-7"},
                           "dev_eui": f"70B3D57ED0{device:06X}", "dev_addr": f"260B{device:04X}"},
        "received_at": received,
        "uplink_message": {
            "f_port": 1, "f_cnt": number, "frm_payload": "AQJ/Zg==",
            "decoded_payload": {"temperature": round(random.gauss(15, 8), 1), "moisture": random.randrange(101),
                                "battery": round(random.uniform(2.9, 3.6), 3)},
            "rx_metadata": [{"gateway_ids": {"gateway_id": f"gw-{(device + index) % 40:02d}"},
                             "rssi": -random.randrange(60, 120), "snr": round(random.uniform(-12, 12), 1)}
                            for index in range(gateways)],
            "settings": {"data_rate": {"lora": {"bandwidth": 125_000, "spreading_factor": random.randrange(7, 13)}},
                         "frequency": "868300000"}}})


def lorawan(random: Random, number: int, time_us: int) -> bytes:
    """An uplink as a network server forwards it: most of it is not asked for."""
    return _uplink(random, number, time_us, 1)


def lorawan_gateways(random: Random, number: int, time_us: int) -> bytes:
    """An uplink that up to four gateways have heard."""
    return _uplink(random, number, time_us, random.randrange(1, 5))


def explode(random: Random, number: int, time_us: int) -> bytes:
    """Eight samples in one message, each a point of its own."""
    samples = [{"sensor": f"s{index}", "value": round(random.uniform(0, 50), 3), "quality": random.randrange(4)}
               for index in range(8)]
    return to_json({"device": f"dev-{number % DEVICES:04d}", "ts": time_us // 1_000, "samples": samples})


def log_lines(random: Random, number: int, time_us: int) -> bytes:
    """Lines of a log: half of the texts have quotes, backslashes or line breaks in them."""
    words = [random.choice(_TOKENS) for _ in range(random.randrange(3, 9))]
    text = " ".join(words)
    if random.random() < 0.5:
        text = random.choice((f'said "{text}"', f"C:\\logs\\{text}", f"{text}\n  at line {number}", f"{text}\t."))
    return to_json({"host": f"host-{number % 50:02d}", "level": random.choice(("info", "warn", "error")),
                    "message": text, "took_ms": random.randrange(5_000), "ts": time_us // 1_000})


def states(random: Random, number: int, time_us: int) -> bytes:
    """The flat message with a state, by which rules choose."""
    state = random.choice(("run", "run", "run", "idle", "test"))
    return to_json({"state": state, **flat_message(random, number, time_us)})


def tenants(random: Random, number: int, time_us: int) -> bytes:
    """The flat message of one of eight tenants."""
    return to_json({"tenant": f"t{number % 8}", **flat_message(random, number, time_us)})


def texts(random: Random, number: int, time_us: int) -> bytes:
    """Numbers and switches as texts."""
    return to_json({"device": f"dev-{number % DEVICES:04d}", "temperature": f"{random.gauss(21, 4):.2f}",
                    "humidity": f"{random.uniform(20, 80):.1f}", "count": str(random.randrange(100_000)),
                    "errors": str(random.randrange(3)), "door": random.choice(("true", "false")),
                    "ts": time_us // 1_000})


def wide(random: Random, number: int, time_us: int) -> bytes:
    """A machine controller's hundred values."""
    values: dict[str, Any] = {f"channel_{index:02d}": round(random.uniform(0, 4_000), 2) for index in range(100)}
    return to_json({"machine": f"m-{number % DEVICES:04d}", "ts": time_us // 1_000, **values})


def four_shapes(random: Random, number: int, time_us: int) -> bytes:
    """Four kinds of devices on one topic, mixed."""
    common = {"device": f"dev-{number % DEVICES:04d}", "ts": time_us // 1_000}
    kind = random.randrange(4)
    if kind == 0:
        return to_json({"type": "climate", **common, "temperature": round(random.gauss(21, 4), 2),
                        "humidity": round(random.uniform(20, 80), 1)})
    if kind == 1:
        return to_json({"type": "power", **common, "watts": round(random.uniform(0, 3_000), 1),
                        "volts": random.randrange(220, 240), "amps": round(random.uniform(0, 16), 3)})
    if kind == 2:
        return to_json({"type": "door", **common, "open": random.random() < 0.5, "battery": random.randrange(101)})
    return to_json({"type": "gps", **common, "lat": round(random.uniform(47, 55), 6),
                    "lon": round(random.uniform(6, 15), 6), "speed": round(random.uniform(0, 130), 1),
                    "fix": random.choice(("2d", "3d"))})


def telegraf(random: Random, number: int, time_us: int) -> bytes:
    """Telegraf's own JSON, of several plugins."""
    name = ("cpu", "mem", "net")[number % 3]
    plugins: dict[str, dict[str, Any]] = {
        "cpu": {"usage_idle": random.uniform(0, 100), "usage_user": random.uniform(0, 100)},
        "mem": {"free": random.randrange(2**34), "used": random.randrange(2**34)},
        "net": {"bytes_recv": random.randrange(2**40), "bytes_sent": random.randrange(2**40), "drop_in": 0}}
    return to_json({"fields": plugins[name], "name": name, "timestamp": time_us // 1_000,
                    "tags": {"host": f"host-{number % DEVICES:04d}", "dc": "fra1"}})


def one_percent_bad(random: Random, number: int, time_us: int) -> bytes:
    """The flat message; one in a hundred is cut off, has a text for a number's object, or no field."""
    payload = flat(random, number, time_us)
    if random.random() >= 0.01:
        return payload
    return random.choice((payload[:-5], payload.replace(b'"ts":', b'"ts":"soon","was":'), b'{"ts":1700000000000}',
                          b"\x00\xff" + payload))
