"""Some lines of a batch, for `pipeline tap`. Pure."""

import zlib
from typing import Final

from pipeline.compression import GZIP_WINDOW_BITS
from pipeline.subscriptions import Subscriptions
from pipeline.wire import sink as wire
from stages.write.batch import Batch

#: Lines of one batch, at most, and bytes of its body that are looked at.
SAMPLE_LINES: Final = 5
SAMPLE_BYTES: Final = 16_384
#: Longest part of a line that is shown, characters.
LINE_CHARACTERS: Final = 2_000


def samples_of(batch: Batch, bodies: list[bytes], topics: Subscriptions, sinks: list[str],
               gzip: bool) -> wire.LineSamples:
    """The first lines of a batch. Nothing of a body that is not what it should be: writing it finds that out."""
    found: list[wire.LineSample] = []
    for bucket, body in zip(batch.lines.buckets, bodies, strict=True):
        for index, line in enumerate(_first_lines(body, gzip, min(bucket.points, SAMPLE_LINES - len(found)))):
            part, offset = batch.locate(bucket.messages_of(index)[0])
            partition = batch.lines.parts[part].range.partition
            topic = topics[partition.topic]
            found.append(wire.LineSample(sinks[topic.sink], topic.stream, topic.topic, partition.number, offset,
                                         bucket.bucket, line))
    return wire.LineSamples(found)


def _first_lines(body: bytes, gzip: bool, most: int) -> list[str]:
    if most <= 0:
        return []
    try:
        plain = zlib.decompressobj(GZIP_WINDOW_BITS).decompress(body, SAMPLE_BYTES) if gzip else body[:SAMPLE_BYTES]
    except zlib.error:
        return []
    lines = plain.split(b"\n", most)
    return [line[:LINE_CHARACTERS * 4].decode("utf-8", "replace")[:LINE_CHARACTERS] for line in lines[:most] if line]
