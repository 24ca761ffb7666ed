"""Finds out what payloads are: JSON, line protocol, CSV, MessagePack, text; and what a message is in a file. Pure."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from pipeline.config.schema import MappingConfig
from stages.mapping.formats import line_protocol, transcoder
from stages.mapping.formats.compression import decompressor
from stages.mapping.formats.errors import BadFormat
from stages.mapping.limits import Limits
from stages.mapping.records.record import decode_object, elements, is_array
from stages.mapping.reject import Reject

#: Payloads that are looked at to find the format, and lines and bytes of each.
_LOOKED_AT: Final = 500
_LINES: Final = 200
_BYTES: Final = 200_000
#: Lines of a file that are looked at, at most.
_MOST_SPLIT: Final = 500_000
#: Share of lines that must be of a format.
_MOST_LINES: Final = 0.8
_DELIMITERS: Final = (",", ";", "\t", "|")
_BOM: Final = b"\xef\xbb\xbf"
_FIRST_BYTES: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4",
                       b"\xff\x06\x00\x00sNaPpY": "snappy"}
_AVRO: Final = b"Obj\x01"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_NUMBER: Final = re.compile(r"\s*[-+]?[0-9]+(?:[.,][0-9]+)?(?:[eE][-+]?[0-9]+)?\s*")
_COMMA: Final = re.compile(r"[-+]?[0-9]+,[0-9]+")
#: Words in cells of loggers for a value that is not there.
_NONE: Final = frozenset(("nan", "n/a", "na", "null", "none", "-", "--", "---", "#n/a", "nodata"))
#: Preset -> the MQTT topics of its messages, in the header that the presets read.
_TOPICS: Final = {"zigbee2mqtt": re.compile("zigbee2mqtt/"), "tasmota": re.compile("tele/[^/]+/(SENSOR|STATE)$"),
                  "aws-iot-shadow": re.compile(r"\$aws/things/[^/]+/shadow/")}
#: Labels of SenML. Source: RFC 8428, 4.3.
_SENML: Final = frozenset(("bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "ut"))
_UNIT_BY_DIGITS: Final = {10: "s", 13: "ms", 16: "us", 19: "ns"}
_WORDS: Final = {"json": "JSON", "ndjson": "JSON, an object on each line", "line_protocol": "line protocol",
                 "csv": "CSV", "msgpack": "MessagePack", "text": "plain text", "avro": "Avro object container files"}
_limits: Final = Limits.of(MappingConfig())


class UnknownFormat(ValueError):
    """No format that can be recognised fits the payloads; the text says what they look like."""


class Detected(NamedTuple):
    """The format of some payloads."""

    #: Options of the mapping: `format`, and those that belong to it, where they are not the defaults.
    options: dict[str, Any]
    #: The format in words.
    words: str
    #: Messages.
    payloads: list[bytes]
    #: What a message is in a file: "line" or "file".
    each: str = "file"
    #: User headers of each message; None where there are none.
    headers: Sequence[Mapping[str, str]] | None = None
    #: How many messages there are, if these are some of them; otherwise 0.
    sampled_from: int = 0

    @property
    def format(self) -> str:
        """As `mapping.format`."""
        return str(self.options.get("format", "json"))


def detect_messages(payloads: Sequence[bytes], headers: Sequence[Mapping[str, str]] | None = None) -> Detected:
    """The format of messages with these user headers. Raises UnknownFormat."""
    topic = next((name for some in (headers or ())[:1] for name, value in some.items()
                  if value.startswith("spBv1.0/") and not set(name) & set("'\"()")), "")
    if topic:
        return Detected({"format": "sparkplug", "sparkplug_topic": f"header('{topic}')"},
                        "Sparkplug B, by the MQTT topic in a header", list(payloads), headers=headers)
    found = _detect(payloads)
    return found._replace(headers=headers if headers is not None and any(headers) else None)


def _detect(payloads: Sequence[bytes]) -> Detected:
    kinds, plain, compression = _looked_at(payloads)
    kind = _most(kinds, plain)
    options = _options(kind, plain)
    if compression:
        options["compression"] = "auto"
    return Detected(options, _WORDS[kind] + (f", {compression}" if compression else ""), list(payloads))


def detect_files(contents: Sequence[bytes], each: str = "") -> Detected:
    """The format of the messages in files, and what a message is in them; `each` ("line" or "file") fixes that.

    Raises UnknownFormat.
    """
    by_line = _split(contents)
    if each == "line":
        return detect_messages(by_line)._replace(each="line")
    if each == "file":
        return detect_messages(contents)
    kinds, plain, compression = _looked_at(contents)
    kind = _most(kinds, plain)
    has_lines = kind in ("ndjson", "line_protocol", "text") or kind == "json" and len(by_line) == len(contents)
    if has_lines and not compression:
        kind = "json" if kind == "ndjson" else kind
        return Detected(_options(kind, plain), _WORDS[kind] + ", a message on each line", by_line, "line")
    options = _options(kind, plain)
    if compression:
        options["compression"] = "auto"
    words = _WORDS[kind] + (f", {compression}" if compression else "")
    return Detected(options, f"{words}, a message in each file", list(contents))


def objects_in(detected: Detected) -> Iterator[bytes | Reject]:
    """The JSON objects that the mapping would get from the messages, and what is wrong with the others."""
    config = msgspec.convert(detected.options, MappingConfig)
    if config.format == "line_protocol":
        return
    transcode = transcoder(config)
    unpack = decompressor(config.compression, config.max_payload_bytes) if config.compression != "none" else bytes
    for payload in detected.payloads:
        try:
            for _, text in transcode(unpack(payload)):
                yield text
        except Reject as reject:
            yield reject
        except RecursionError:
            yield Reject("too_deep", "objects or arrays are nested too deep to be parsed")


def known_preset(detected: Detected) -> str:
    """The preset for messages of a format that it knows; "" if there is none."""
    if detected.format == "sparkplug":
        return "sparkplug"
    if detected.format != "json" or "compression" in detected.options:
        return ""
    topics = [some.get("mqtt-topic", "") for some in (detected.headers or ())[:_LOOKED_AT]]
    for name, pattern in _TOPICS.items():
        if topics and sum([bool(pattern.match(topic)) for topic in topics]) >= _MOST_LINES * len(topics):
            return name
    found = Counter(_preset_of(payload) for payload in detected.payloads[:_LOOKED_AT])
    name, count = found.most_common(1)[0]
    return name if count >= _MOST_LINES * sum(found.values()) else ""


def _preset_of(payload: bytes) -> str:
    try:
        value = msgspec.json.decode(payload.removeprefix(_BOM))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if isinstance(value, list):
        records = [record for record in value if isinstance(record, dict)]
        is_pack = bool(records) and len(records) == len(value) and all(
            record.keys() <= _SENML for record in records) and any(
            record.keys() & {"n", "bn"} for record in records) and any(
            record.keys() & {"v", "vs", "vb", "vd", "s"} for record in records)
        return "senml" if is_pack else ""
    if not isinstance(value, dict):
        return ""
    metrics = value.get("metrics")
    if _is_metric(metrics[0] if isinstance(metrics, list) and metrics else value):
        return "telegraf"
    for name, (key, inner) in _KEYS.items():
        if isinstance(value.get(key), dict | list | str) and inner <= (value[key].keys() if isinstance(
                value[key], dict) else value.keys()):
            return name
    return ""


#: Preset -> a key of its messages, and keys in it, if it is an object, or else beside it.
_KEYS: Final = {
    "opentelemetry": ("resourceMetrics", {"resourceMetrics"}), "prometheus": ("data", {"resultType", "result"}),
    "cloudevents": ("specversion", {"data", "source", "type"}), "the-things-network": ("end_device_ids", {"device_id"}),
    "shelly": ("method", {"src", "params"})}


def _is_metric(value: Any) -> bool:
    return isinstance(value, dict) and {"name", "tags", "fields", "timestamp"} <= value.keys() and isinstance(
        value["fields"], dict) and isinstance(value["tags"], dict)


def _split(contents: Iterable[bytes]) -> list[bytes]:
    return [line for content in contents for line in content.removeprefix(_BOM).split(b"\n", _MOST_SPLIT)[:_MOST_SPLIT]
            if line.strip()]


def _looked_at(payloads: Sequence[bytes]) -> tuple[Counter[str], list[bytes], str]:
    """How many of some payloads are of each kind, those payloads decompressed, and their compression."""
    stride = max(1, len(payloads) // _LOOKED_AT)
    kinds: Counter[str] = Counter()
    plain: list[bytes] = []
    compression = ""
    for payload in payloads[::stride]:
        name = next((name for magic, name in _FIRST_BYTES.items() if payload.startswith(magic)), "")
        if name:
            try:
                payload = decompressor(name, _limits.expanded)(payload)
            except (Reject, BadFormat) as error:
                raise UnknownFormat(f"the messages are compressed ({name}), and cannot be decompressed: {error}"
                                    ) from None
            compression = name
        if payload.strip():
            plain.append(payload)
            kinds[kind_of_payload(payload)] += 1
    return kinds, plain, compression


def _most(kinds: Counter[str], plain: Sequence[bytes]) -> str:
    """The kind that most payloads have. Raises UnknownFormat."""
    if not kinds:
        raise UnknownFormat("there is nothing but empty messages")
    if kinds["json"] + kinds["ndjson"] >= sum(kinds.values()) / 2:
        return "ndjson" if kinds["ndjson"] > kinds["json"] else "json"
    kind = max(kinds, key=lambda name: kinds[name])
    if kind == "utf-16":
        raise UnknownFormat("the messages look like UTF-16; all text formats are UTF-8 here, so convert them")
    see = 'see "Formats" in docs/reference/mapping.rst'
    if kind == "confluent":
        raise UnknownFormat("the messages begin with a zero byte and a schema's id, as Confluent's serializers write "
                            f"them: Avro or Protobuf, which need their schema; {see}")
    if kind == "binary":
        raise UnknownFormat(f"the messages are binary (the first one begins with {plain[0][:16].hex(' ')}), and "
                            "neither MessagePack nor compressed; if they are Avro or Protobuf, their schema has to be "
                            f"given: {see}; Sparkplug B is recognised by the MQTT topic in a header")
    return kind


def kind_of_payload(payload: bytes) -> str:
    """What one payload is: a name of a format, or "utf-16", "confluent", "binary"."""
    if payload.startswith(_AVRO):
        return "avro"
    if payload[:2] in _UTF_16:
        return "utf-16"
    head = payload.removeprefix(_BOM).lstrip()[:1]
    if head in (b"{", b"[") and _is_json(payload):
        return "json"
    if _is_msgpack(payload):
        return "msgpack"
    text = _text(payload)
    if text is None:
        return "confluent" if payload[:1] == b"\0" and len(payload) > 5 else "binary"
    lines = [line for line in payload.removeprefix(_BOM)[:_BYTES].split(b"\n")[:_LINES] if line.strip()]
    if head in (b"{", b"[") or len(lines) > 1:
        found = sum([line.lstrip()[:1] in (b"{", b"[") and _is_json(line) for line in lines])
        if found >= max(1, len(lines) / 2):
            return "ndjson" if len(lines) > 1 else "json"
        if head in (b"{", b"["):
            return "json" if len(lines) == 1 else "text"
    if _is_line_protocol(payload[:_BYTES]):
        return "line_protocol"
    return "csv" if _csv_delimiter(text) else "text"


def _is_json(payload: bytes) -> bool:
    """Whether a payload is an object, or an array of objects."""
    try:
        if is_array(payload):
            return any(element[:1] == b"{" for element in elements(payload, _limits))
        decode_object(payload, _limits)
    except (Reject, RecursionError):
        return False
    return True


def _is_msgpack(payload: bytes) -> bool:
    first = payload[0]
    if not (0x80 <= first <= 0x9F or 0xDC <= first <= 0xDF):
        return False
    try:
        value = msgspec.msgpack.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) or isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _text(payload: bytes) -> str | None:
    """A payload as text; None where it is none."""
    try:
        text = payload[:_BYTES].decode("utf-8-sig", "strict" if len(payload) <= _BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    controls = sum([character < " " and character not in "\t\n\r\x1b" for character in text[:5_000]])
    return None if controls else text


def _is_line_protocol(payload: bytes) -> bool:
    good = bad = 0
    try:
        for _, line in line_protocol.lines(payload, "ns", "ns", _limits):
            good, bad = (good, bad + 1) if isinstance(line, Reject) else (good + 1, bad)
            if good + bad >= _LINES:
                break
    except Reject:
        return False
    return good > 0 and good >= _MOST_LINES * (good + bad)


def _csv_delimiter(text: str) -> str:
    """The character between the cells where a text is CSV; otherwise ""."""
    body = _body(text)
    for delimiter in _DELIMITERS:
        rows = _rows(body, delimiter)
        rows = rows[_preamble(rows):]
        if len(rows) < 2 or len(rows[0]) < 2:
            continue
        same = sum([len(row) == len(rows[0]) for row in rows])
        columns = list(zip(*[row for row in rows[1:] if len(row) == len(rows[0])], strict=False))
        numeric = [column for column in columns if sum([bool(_NUMBER.fullmatch(cell)) for cell in column])
                   >= _MOST_LINES * len(column)]
        if same >= 0.9 * len(rows) and numeric:
            return delimiter
    return ""


def _body(text: str) -> str:
    """A text without the lines of comments at its beginning."""
    lines = text.split("\n")
    first = next((at for at, line in enumerate(lines) if line.strip() and not line.startswith("#")), 0)
    return "\n".join(lines[first:])


def _preamble(rows: Sequence[Sequence[str]]) -> int:
    """How many rows stand before the names: those with another number of cells than nearly all rows."""
    if len(rows) < 3:
        return 0
    usual = Counter(map(len, rows)).most_common(1)[0][0]
    return next((at for at, row in enumerate(rows) if len(row) == usual), 0)


def _rows(text: str, delimiter: str, trim: bool = True) -> list[list[str]]:
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=trim)
        return [row for _, row in zip(range(_LINES), rows, strict=False) if row]
    except csv.Error:
        return []


def _options(kind: str, payloads: Sequence[bytes]) -> dict[str, Any]:
    """The mapping's options of a format, where they are not the defaults."""
    options: dict[str, Any] = {} if kind == "json" else {"format": kind}
    if kind == "csv":
        options |= _csv_options(payloads)
    if kind == "line_protocol" and (unit := _line_precision(payloads)) != "ns":
        options["line_protocol_precision"] = unit
    return options


def _csv_options(payloads: Sequence[bytes]) -> dict[str, Any]:
    whole = next(text for payload in payloads if (text := _text(payload)) is not None and _csv_delimiter(text))
    options: dict[str, Any] = {}
    delimiter, text = _csv_delimiter(whole), _body(whole)
    if delimiter != ",":
        options["csv_delimiter"] = delimiter
    if len(text) < len(whole):
        options["csv_comment"] = "#"
    rows = _rows(text, delimiter, trim=False)
    if skipped := _preamble(rows):
        options["csv_skip_lines"] = skipped
    first, *rest = rows[skipped:]
    cells = [cell.strip() for row in rest for cell in row]
    if delimiter != "," and any(_COMMA.fullmatch(cell) for cell in cells):
        options["csv_decimal"] = ","
    if none := list(dict.fromkeys([cell for cell in cells if cell.lower() in _NONE]))[:10]:
        options["csv_none"] = none
    if any(cell != cell.strip() for row in (first, *rest) for cell in row):
        options["csv_trim"] = True
    names = [cell.strip() for cell in first]
    if any(_NUMBER.fullmatch(cell) or not cell for cell in names) or len(set(names)) < len(names):
        options["csv_header"] = [f"column{number}" for number in range(1, len(first) + 1)]
    return options


def _line_precision(payloads: Sequence[bytes]) -> str:
    """The unit of the times of lines, by their digits."""
    digits = Counter(len(found[1]) for payload in payloads[:50]
                     for found in re.finditer(rb" ([0-9]{10,19})[ \t\r]*(?:\n|$)", payload[:_BYTES]))
    return _UNIT_BY_DIGITS.get(max(digits, key=lambda count: digits[count]), "ns") if digits else "ns"
