"""Messages as people read them, for `pipeline tap` and `pipeline preview`. Pure."""

import base64
import zlib
from collections.abc import Sequence
from typing import Final

import msgspec

from pipeline.compression import decompress
from pipeline.config.source_schema import OutputConfig, SourceConfig
from pipeline.points.table import BadRow
from pipeline.wire import source as source_wire
from stages.produce.batching import Send

#: Messages and rejected rows of one page, at most.
SAMPLE_MESSAGES: Final = 5
#: Longest part of a message that is shown, characters.
SHOWN_CHARACTERS: Final = 2_000


def payload_text(output: OutputConfig, payload: bytes) -> tuple[str, str]:
    """A payload as text, and what it was, "" if it was text: MessagePack as JSON, without gzip; Base64 if it is none of
    these."""
    try:
        content = decompress(payload) if output.batch_points > 1 and output.compression == "gzip" else payload
        if output.format == "msgpack":
            return msgspec.json.encode(msgspec.msgpack.decode(content)).decode(), "MessagePack, as JSON"
        return content.decode(), ""
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, TypeError, ValueError):
        return base64.b64encode(payload).decode(), "Base64"


def samples_of(source: SourceConfig, measurement: str, topic: tuple[str, str], sends: Sequence[Send],
               bad: Sequence[BadRow]) -> source_wire.MessageSamples:
    """The first messages of a page, and the first of its rows that were rejected."""
    messages = [source_wire.MessageSample(
        source.name, measurement, *topic, -1 if send.partition is None else send.partition, len(payload),
        *(text[:SHOWN_CHARACTERS] for text in payload_text(source.output, payload)))
        for send, payload in _first(sends)]
    rejects = [source_wire.RowSample(source.name, measurement, *topic, row.reason, row.detail,
                                     row.row[:SHOWN_CHARACTERS]) for row in bad[:SAMPLE_MESSAGES]]
    return source_wire.MessageSamples(messages, rejects)


def _first(sends: Sequence[Send]) -> list[tuple[Send, bytes]]:
    found: list[tuple[Send, bytes]] = []
    for send in sends:
        found += [(send, payload) for payload in send.payloads[:SAMPLE_MESSAGES - len(found)]]
    return found
