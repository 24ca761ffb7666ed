"""Every way from messages to lines against the rules, and the rules against Python's own JSON."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from pipeline.config.schema import MappingConfig
from pipeline.wire import payload_frame
from pipeline.wire.sink import Notice
from stages.mapping.encoder import BatchOrigin, Encoded, Encoder
from tests.support.points import normal

#: Mappings that between them use every way, and every kind of value in it.
MAPPINGS: Final = [
    MappingConfig(tag_fields=("site",), timestamp_from="field", timestamp_field="ts"),
    MappingConfig(tag_fields=("site", "data.temp"), timestamp_from="field", timestamp_field="ts",
                  on_missing_timestamp="iggy_timestamp", types={"b": "integer", "a": "float"},
                  on_bad_value="drop_field"),
    MappingConfig(integers="as_written", merge_duplicates=False, on_name_clash="keep_last"),
    MappingConfig(field_strategy="explicit", field_names=("a", "b", "v", "text"), on_bad_value="string"),
    MappingConfig(nested="json", arrays="index", flatten_separator=".", timestamp_from="arrival", on_no_fields="drop"),
    MappingConfig(tag_map_field="data", on_name_clash="keep_last", constant_tags={"a": "1"},
                  metadata_tags=("partition",), nested="drop", arrays="join"),
    MappingConfig(explode="list", tag_fields=("site",), exclude_fields=("data.deep", "text", "list.y")),
    MappingConfig(tag_map_field="data", exclude_fields=("data.temp", "b", "time"), field_strategy="explicit",
                  field_names=("data.deep", "a", "v", "b.c"), integers="as_written"),
]
_TIME_MICROS: Final = 1_700_000_000_000_000
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[^"]+', re.DOTALL)
_NOT_NUMBERS: Final = re.compile(rb"-?\b(?:nan|inf|infinity)\b", re.IGNORECASE)


def an_origin(count: int) -> BatchOrigin:
    """Where so many messages were."""
    return BatchOrigin(partition=2, first=100, timestamps=[_TIME_MICROS + n for n in range(count)],
                       arrival=_TIME_MICROS + 1_000_000)


def by_rules(mapping: MappingConfig, payloads: Sequence[bytes]) -> Encoded:
    """What the rules make of a batch, message by message."""
    return with_notices(mapping, payloads)[0]


def with_notices(mapping: MappingConfig, payloads: Sequence[bytes]) -> tuple[Encoded, list[Notice]]:
    """The same, and what is said of it."""
    encoder = Encoder(mapping, "ns", "stream", "topic")
    encoder.is_compiled = False
    return encoder.encode(payloads, an_origin(len(payloads))), encoder.rules.notices.take()


def difference(mapping: MappingConfig, before: Sequence[Sequence[bytes]], payloads: Sequence[bytes]) -> str:
    """Which way writes a batch otherwise than the rules, after batches from which it has learned; "" if none does."""
    expected, notices = with_notices(mapping, payloads)
    origin = an_origin(len(payloads))
    for way in ("new", "learned", "without uniform", "as an array", "again", "by templates"):
        if way in ("new", "learned"):
            encoder = Encoder(mapping, "ns", "stream", "topic")
            for batch in before if way == "learned" else ():
                encoder.encode(batch, an_origin(len(batch)))
                encoder.rules.notices.take()
        if way in ("without uniform", "by templates"):
            encoder.uniform = None
        if way == "by templates":
            encoder.templates.least_messages = encoder.templates.learned_after = 1
            encoder.encode(payloads, origin)
            encoder.rules.notices.take()
            encoder.uniform = None
        array = payload_frame.joined(payloads)
        found = encoder.encode_array(array, len(payloads), origin) if way == "as an array" else None
        found = found or encoder.encode(payloads, origin)
        said = encoder.rules.notices.take()
        if (normal(found), said) != (normal(expected), notices):
            return (f"{way}: {found} {said} instead of {expected} {notices} for {list(payloads)} after {list(before)} "
                    f"by {mapping}")
    return ""


def depends_on_neighbours(mapping: MappingConfig, payloads: Sequence[bytes]) -> str:
    """Which messages come out otherwise in a batch than alone; "" if none does."""
    mapping = replace(mapping, merge_duplicates=False)
    whole = by_rules(mapping, payloads)
    origin = an_origin(len(payloads))
    points, rejects = [], []
    for index, payload in enumerate(payloads):
        encoder = Encoder(mapping, "ns", "stream", "topic")
        alone = encoder.encode([payload], replace(origin, first=origin.first + index,
                                                  timestamps=[_TIME_MICROS + index]))
        points += normal(alone)[1]
        rejects += [reject._replace(at=index) for reject in alone.rejects]
    if (points, rejects) != (normal(whole)[1], whole.rejects):
        return f"alone {points} {rejects}, together {whole} for {list(payloads)} by {mapping}"
    return ""


def is_object(payload: bytes) -> bool | None:
    """Whether a payload is a JSON object as the documentation has it; None where it is JSON and no object.

    A byte order mark may stand before it, and NaN and infinities may stand for numbers.
    """
    payload = payload.removeprefix(b"\xef\xbb\xbf")
    payload = b"".join([part if part[:1] == b'"' else _NOT_NUMBERS.sub(b"null", part)
                        for part in _STRINGS.findall(payload)])
    try:
        value: Any = json.loads(payload.decode(), parse_constant=_refuse, parse_int=str, parse_float=str)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        return False
    return True if isinstance(value, dict) else None


def _refuse(token: str) -> None:
    raise ValueError(token)


def misjudged(mapping: MappingConfig, payload: bytes) -> str:
    """What is wrong where the rules take for JSON what is none, or the other way round; "" if nothing is."""
    encoded = by_rules(mapping, [payload])
    reasons = {reject.reason for reject in encoded.rejects}
    known = is_object(payload)
    if known is False and (encoded.points or encoded.dropped or not reasons <= {"not_json", "too_large"}):
        return f"{payload!r} is not JSON, and came out as {encoded}"
    if known is True and reasons & {"not_json", "not_object"}:
        return f"{payload!r} is JSON, and came out as {encoded}"
    return ""
