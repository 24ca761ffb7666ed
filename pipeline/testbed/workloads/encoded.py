"""The flat message in other formats than JSON."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from pipeline.testbed.workloads.messages import flat_message

#: Names of the flat message's values, in its order.
COLUMNS: Final = ("site", "device", "temperature", "humidity", "pressure", "battery", "ok", "ts")
_AVRO: Final = {"type": "record", "name": "Reading", "fields": [
    {"name": name, "type": {"site": "string", "device": "string", "battery": "int", "ok": "boolean", "ts": "long"}.get(
        name, "double")} for name in COLUMNS]}


def msgpack(random: Random, number: int, time_us: int) -> bytes:
    """MessagePack."""
    return msgspec.msgpack.encode(flat_message(random, number, time_us))


def csv(random: Random, number: int, time_us: int) -> bytes:
    """Comma-separated values, one line a message."""
    message = flat_message(random, number, time_us)
    return ",".join([str(value).lower() if isinstance(value, bool) else str(value)
                     for value in message.values()]).encode()


def line_protocol(random: Random, number: int, time_us: int) -> bytes:
    """A line as an agent sends it."""
    message = flat_message(random, number, time_us)
    fields = ",".join([f"{key}={str(message[key]).lower()}" for key in COLUMNS[2:-1]])
    return f"sensors,device={message['device']},site={message['site']} {fields} {message['ts']}\n".encode()


def avro_schema(folder: Path) -> str:
    """Writes the schema of `avro` messages to a file in the folder; gives its path."""
    path = folder / "reading.avsc"
    path.write_text(json.dumps(_AVRO))
    return str(path)


def avro_writer() -> Callable[[Random, int, int], bytes]:
    """Makes Avro records, each without its schema. Needs fastavro."""
    import fastavro

    parsed: Any = fastavro.parse_schema(_AVRO)

    def avro(random: Random, number: int, time_us: int) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, flat_message(random, number, time_us))
        return out.getvalue()

    return avro


def avro_reader() -> Callable[[bytes], dict[str, Any]]:
    """Reads what `avro_writer` makes."""
    import fastavro

    parsed: Any = fastavro.parse_schema(_AVRO)

    def read(payload: bytes) -> dict[str, Any]:
        found: Any = fastavro.schemaless_reader(io.BytesIO(payload), parsed, None)
        return dict(found)

    return read


def csv_reader(payload: bytes) -> dict[str, Any]:
    """Reads what `csv` makes, as one does by hand."""
    import csv as csv_module

    (cells,) = csv_module.reader([payload.decode()])
    message: dict[str, Any] = dict(zip(COLUMNS, cells, strict=True))
    for name in COLUMNS[2:]:
        text = message[name]
        message[name] = text == "true" if text in ("true", "false") else float(text) if "." in text else int(text)
    return message
