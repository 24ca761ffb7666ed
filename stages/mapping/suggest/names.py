"""What the names of keys say of their values: words by which people call times, devices, states and texts. Pure."""

import re
from typing import Final

#: Names of the time of a message.
TIMES: Final = frozenset((
    "time", "timestamp", "ts", "datetime", "eventtime", "measuredat", "dateutc", "epoch", "timeutc", "unixtime",
    "recordedat", "observedat", "sampledat", "time_stamp", "date_time",
    "sec", "secs", "tv_sec", "ts_ms", "ts_us", "ts_ns"))
#: Words in names of times.
_TIME_WORDS: Final = frozenset(("time", "timestamp", "ts", "date", "datetime", "epoch", "when", "utc", "at", "t",
                                "clock"))
#: Words in names of times that are not the message's own, and of durations.
_OTHER_TIME_WORDS: Final = frozenset((
    "up", "uptime", "duration", "elapsed", "latency", "timeout", "response", "run", "runtime", "boot", "created",
    "start", "started", "begin", "end", "ended", "expires", "expiry", "last", "previous", "next", "first", "updated",
    "since", "interval", "connected", "build", "installed", "on", "off", "remaining", "valid", "until", "modified"))
#: Words in names of what a point belongs to: devices, places, kinds.
_IDENTITIES: Final = frozenset((
    "device", "devices", "dev", "sensor", "node", "host", "hostname", "machine", "station", "gateway", "meter",
    "instance", "asset", "equipment", "plant", "line", "site", "room", "floor", "building", "location", "city",
    "country", "region", "zone", "area", "rack", "channel", "source", "service", "app", "application", "env",
    "environment", "cluster", "pod", "namespace",
    "container", "vehicle", "unit", "model", "type", "kind", "class", "category", "name", "measurand",
    "metric", "tag", "label", "interface", "iface", "cpu", "disk", "mac", "serial", "eui", "deveui", "imei", "ieee",
    "vendor", "manufacturer", "group", "topic", "port", "slot", "index", "phase", "pump", "tank", "product", "family",
    "owner", "customer", "tenant", "fleet", "department", "side", "direction", "circuit", "connector", "evse", "cp"))
#: Words in names of numbers that a maker gives a device: they look random, and are not.
_HARDWARE: Final = frozenset(("mac", "serial", "eui", "deveui", "imei", "iccid", "ieee"))
#: Names of times that are the message's own if there is no better one.
_LESSER_TIMES: Final = frozenset(("last_seen", "lastseen", "last_updated", "lastupdated", "last_update", "updated_at",
                                  "updatedat", "updated", "created_at", "createdat", "last_changed"))
#: The strongest of them: one message alone is enough to take its text for a tag.
_THINGS: Final = frozenset((
    "device", "dev", "sensor", "node", "host", "hostname", "machine", "station", "gateway", "meter", "site", "room",
    "building", "location", "city", "country", "region", "zone", "area", "plant", "deveui", "channel", "service",
    "model", "type", "kind", "measurand", "interface", "cluster", "vehicle", "asset", "tenant", "phase"))
#: Words in names of what identifies a single message, and so is different in each.
_SINGLE: Final = frozenset((
    "uuid", "guid", "trace", "span", "request", "correlation", "transaction", "msg", "message", "event", "session",
    "nonce", "hash", "checksum", "signature", "digest", "crc", "etag", "rev", "seq", "sequence", "offset", "token",
    "packet", "frame", "counter", "fcnt", "fcntup"))
#: Words in names of texts for people.
_FREE_TEXT: Final = frozenset((
    "message", "msg", "text", "description", "desc", "comment", "note", "notes", "error", "exception", "stack",
    "stacktrace", "body", "payload", "raw", "data", "url", "uri", "query", "agent", "log", "title", "summary", "detail",
    "details", "reason", "sql", "command", "cmd", "address"))
#: Words in names of what changes while the thing remains the same.
_STATES: Final = frozenset((
    "state", "status", "mode", "action", "position", "power", "contact", "online", "alarm", "condition", "health",
    "result", "fault", "relay", "motion", "occupancy", "door", "window", "weather", "trend", "effect", "color",
    "colour", "value", "val", "v", "reading"))
#: Names of a measurement.
_MEASUREMENTS: Final = frozenset(("measurement", "_measurement", "metric", "metric_name", "metricname", "__name__"))
#: Names of integers that are the number of a thing.
_NUMBERED: Final = frozenset(("channel", "slot", "node", "port", "fport", "addr", "address", "register", "reg", "pin",
                              "index", "phase"))
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def last(path: str) -> str:
    """The last key of a path."""
    return path.rpartition(".")[2]


def words(path: str) -> list[str]:
    """The words in the last key of a path, in lower case: ["device", "id"] for "meta.deviceId"."""
    return [word.lower() for word in _WORD.findall(last(path)[:200])]


def time_score(path: str) -> int:
    """How much a name speaks for the message's own time: 3 to -1; 0 says nothing."""
    name, parts = last(path).lower().lstrip("@_"), words(path)
    if name in TIMES or name.replace("_", "") in TIMES:
        return 3
    if name in _LESSER_TIMES:
        return 1
    if set(parts) & _OTHER_TIME_WORDS:
        return -1
    return 2 if set(parts) & _TIME_WORDS or name in ("date", "t") else 0


def is_thing(path: str) -> bool:
    """Whether a name says what a point belongs to, so that even a single message is enough."""
    parts = words(path)
    return bool(set(parts) & _THINGS) and not _is_single(parts)


def is_identity(path: str) -> bool:
    """Whether a name says what a point belongs to, a kind or a place."""
    parts = words(path)
    return bool(set(parts) & _IDENTITIES) and not _is_single(parts)


def is_hardware(path: str) -> bool:
    """Whether a name says that the value is the number that a maker gave a device."""
    return bool(set(words(path)) & _HARDWARE)


def is_numbered(path: str) -> bool:
    """Whether an integer of this name is the number of a thing rather than a value."""
    parts = words(path)
    return bool(parts) and not _is_single(parts) and (
        parts[-1] in ("id", "eui", "imei", "serial", "mac") or "".join(parts) in _NUMBERED
        or parts[-1] in ("channel", "number", "no", "nr") and bool(set(parts[:-1]) & _IDENTITIES))


def is_single(path: str) -> bool:
    """Whether a name says that the value identifies one message alone."""
    return _is_single(words(path)) or last(path) == "_id"


def _is_single(parts: list[str]) -> bool:
    found = set(parts) & _SINGLE
    if set(parts) & _THINGS:
        found -= {"uuid", "guid"}
    return bool(found - {"message", "msg", "event", "counter"}) or parts[-1:] == ["id"] and bool(found)


def is_free_text(path: str) -> bool:
    """Whether a name says that the value is a text for people, or content."""
    parts = words(path)
    return bool(parts) and parts[-1] in _FREE_TEXT


def is_state(path: str) -> bool:
    """Whether a name says that the value changes while the thing remains the same."""
    parts = words(path)
    return bool(parts) and parts[-1] in _STATES or bool(set(parts) & {"state", "status"})


def is_measurement(path: str) -> bool:
    """Whether a name says that the value is the measurement."""
    return last(path).lower() in _MEASUREMENTS


def is_code(path: str) -> bool:
    """Whether a name says that digits are no amount: a postal code, a telephone or serial number, a version."""
    return "version" in last(path).lower() or bool(set(words(path)) & {
        "id", "zip", "plz", "postal", "postcode", "phone", "tel", "serial", "version", "fw", "firmware", "sku", "ean",
        "isbn", "imei", "imsi", "iccid", "mac", "eui", "code", "barcode", "account", "iban", "address", "addr", "key",
        "passkey", "password", "pin"})


def is_about_transport(path: str) -> bool:
    """Whether a name says that an array is about how a message came, such as the gateways of LoRaWAN."""
    return bool(set(words(path)) & {"metadata", "meta", "info", "gws", "gateways", "hops", "headers", "ids"})


def is_tag_map(path: str) -> bool:
    """Whether a name says that an object's members are tags."""
    return last(path).lower() in ("tags", "labels", "dimensions")
