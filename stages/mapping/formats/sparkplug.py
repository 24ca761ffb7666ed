"""`format = "sparkplug"`: Sparkplug B, an object for each time of a payload's metrics.

Source: Eclipse Sparkplug specification 3.0. Each object has `_group`, `_node`, `_device`, `_type` (of the message),
`_time` (milliseconds) and a key for each metric. Births are read for what aliases stand for, and for data types, and
their values are written, too. Deaths, commands and the states of hosts are left out; so are `bdSeq`, the controls of
nodes and devices, and metrics without a value.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pipeline.config.schema import MappingConfig
from stages.mapping.formats.errors import missing_package
from stages.mapping.formats.json_values import to_json
from stages.mapping.formats.sparkplug_births import Birth, Births, FolderFull, Sender
from stages.mapping.formats.sparkplug_payload import UnknownType, checked_text, payload_class, value_of
from stages.mapping.limits import Limits, TooComplex
from stages.mapping.records.series import Origin
from stages.mapping.reject import Dropped, Reject, shown

_REASON: Final = "not_sparkplug"
_NAMESPACE: Final = "spBv1.0"
_BIRTHS: Final = ("NBIRTH", "DBIRTH")
_DATA: Final = ("NDATA", "DDATA", *_BIRTHS)
_LEFT_OUT: Final = ("NDEATH", "DDEATH", "NCMD", "DCMD", "STATE")
#: Metrics that are no telemetry.
_CONTROLS: Final = ("Node Control/", "Device Control/", "Node Info/bdSeq")
_BD_SEQ: Final = "bdSeq"

#: (payload, origin) -> as `formats.Transcoder`. Raises Dropped for a message that is left out.
Reader = Callable[[bytes, Origin], Iterator[tuple[str, bytes | Reject]]]


class _Topic(NamedTuple):
    """What an MQTT topic says of its message."""

    kind: str
    sender: Sender


def sparkplug_reader(config: MappingConfig, topic: str, limits: Limits) -> Reader:
    """Reads the messages of one topic of Iggy. Raises BadFormat."""
    try:
        parse = payload_class().FromString
    except ImportError:
        raise missing_package("format", "sparkplug", "protobuf", "protobuf") from None
    births = Births(config.sparkplug_births)
    names, header = config.header_names(), config.sparkplug_header()
    index = names.index(header) if header in names else -1

    def objects(payload: bytes, origin: Origin) -> Iterator[tuple[str, bytes | Reject]]:
        from google.protobuf.message import DecodeError

        about = _topic(_text(origin.headers, index) if index >= 0 else topic, config.sparkplug_topic)
        if about.kind in _LEFT_OUT:
            raise Dropped
        try:
            message = parse(payload)
        except DecodeError as error:
            raise Reject(_REASON, str(error)) from None
        limits.check_keys(len(message.metrics))
        yield from _Message(about, message, births, limits, origin).objects()

    return objects


def _text(headers: Sequence[str], index: int) -> str:
    return headers[index] if index < len(headers) else ""


def _topic(text: str, source: str) -> _Topic:
    """Raises Reject for a topic that is not one of Sparkplug B."""
    parts = text.split("/" if "/" in text else ".", 8)
    if len(parts) > 1 and _NAMESPACE.split(".") == parts[:2]:
        parts[:2] = [_NAMESPACE]
    if _NAMESPACE not in parts:
        raise Reject(_REASON, f"{source} is {shown(text)!r}, and not a topic of Sparkplug B such as "
                              "spBv1.0/group/DDATA/node/device (sparkplug_topic)")
    parts = parts[parts.index(_NAMESPACE) + 1:]
    if parts[:1] == ["STATE"]:
        return _Topic("STATE", Sender("", ""))
    if len(parts) not in (3, 4) or not all(parts) or parts[1] not in (*_DATA, *_LEFT_OUT) or (
            (len(parts) == 4) != (parts[1][0] == "D")):
        raise Reject(_REASON, f"{source} is {shown(text)!r}, which has not the form spBv1.0/group/DDATA/node/device")
    return _Topic(parts[1], Sender(parts[0], parts[2], parts[3] if len(parts) == 4 else ""))


class _Message:
    """One payload."""

    def __init__(self, about: _Topic, message: Any, births: Births, limits: Limits, origin: Origin) -> None:
        self._about = about
        self._message = message
        self._births = births
        self._limits = limits
        self._time: int = message.timestamp or (origin.timestamp or origin.arrival or 0) // 1_000
        if about.kind in _BIRTHS:
            self._birth: Birth | None = _birth_of(message, self._time)
            self._keep(self._birth)
        else:
            self._birth = births.at(about.sender, self._time)

    def _keep(self, birth: Birth) -> None:
        try:
            self._births.add(self._about.sender, birth)
        except FolderFull:
            raise Reject("no_birth", f"the birth of {self._about.sender} is not stored: the files in sparkplug_births "
                                     "have a gigabyte; remove those of nodes that are gone") from None
        except OSError as error:
            raise Reject("no_birth", f"the birth of {self._about.sender} cannot be stored (sparkplug_births): "
                                     f"{error.strerror}") from None

    def objects(self) -> Iterator[tuple[str, bytes | Reject]]:
        """An object for each time, and a Reject for each metric that cannot be read."""
        sender = self._about.sender
        head = {"_group": sender.group, "_node": sender.node, "_device": sender.device or None,
                "_type": self._about.kind}
        by_time: dict[int, dict[str, Any]] = {}
        bad: list[Reject] = []
        if self._about.kind not in _BIRTHS and not self._knows_all():
            self._births.wait(sender, self._knows_all)
        for metric in self._message.metrics:
            try:
                name, value = self._read(metric)
            except TooComplex:
                raise
            except Reject as wrong:
                bad.append(wrong)
                continue
            if name and value is not None:
                time = metric.timestamp or self._time
                by_time.setdefault(time, {**head, "_time": time or None})[name] = value
        if not by_time and not bad:
            raise Dropped  # a heartbeat, or a birth without values
        for members in by_time.values():
            yield "", to_json(members, self._limits)
        for reject in bad:
            yield "", reject

    def _knows_all(self) -> bool:
        """Whether each alias stands for a metric, by the births that are known now."""
        aliases = [metric.alias for metric in self._message.metrics if not metric.name]
        if not aliases:
            return True
        self._birth = self._births.at(self._about.sender, self._time)
        return self._birth is not None and all(alias in self._birth.names for alias in aliases)

    def _read(self, metric: Any) -> tuple[str, Any]:
        """Name and value of a metric; "" for one that is left out. Raises Reject."""
        name = checked_text(metric.name) or (self._birth.names.get(metric.alias, "") if self._birth is not None else "")
        if not name:
            what = f"alias {metric.alias}" if metric.HasField("alias") else "a metric without name and alias"
            if not metric.HasField("alias"):
                raise Reject(_REASON, what)
            raise Reject("no_birth", f"{what}: {self._unknown()}")
        if name == _BD_SEQ or name.startswith(_CONTROLS):
            return "", None
        datatype = metric.datatype or (self._birth.types.get(name, 0) if self._birth is not None else 0)
        try:
            return name, value_of(metric, datatype, self._limits)
        except UnknownType:
            raise Reject("no_birth", f"{shown(name)}: its data type is not in the message, and {self._unknown()}"
                         ) from None

    def _unknown(self) -> str:
        return (f"the birth of {self._about.sender} " + ("was not seen" if self._birth is None else "does not have it")
                + "; ask the node for a rebirth, and replay this message from the dead letters")


def _birth_of(message: Any, time: int) -> Birth:
    """What a birth says."""
    named = [metric for metric in message.metrics if metric.name]
    return Birth(time, {metric.alias: checked_text(metric.name) for metric in named if metric.HasField("alias")},
                 {checked_text(metric.name): metric.datatype for metric in named})
