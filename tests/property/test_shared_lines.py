"""The lines of several batches in one body: each still leads to its message."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.compression import decompress
from pipeline.wire import sink as wire
from stages.encode.shared_lines import SharedLines
from stages.mapping.batch import Lines

#: A batch: of each of its messages, the buckets that it has lines for.
BATCHES = st.lists(st.lists(st.lists(st.sampled_from(["", "a", "b"]), max_size=2), min_size=1, max_size=4), min_size=1,
                   max_size=5)


def lines_of(batch: list[list[str]], number: int, simple: bool) -> list[Lines]:
    """What a mapping makes of a batch. Each line names its batch and message. `simple`: without sources if it may."""
    found: dict[str, list[tuple[int, str]]] = {}
    for index, buckets in enumerate(batch):
        for bucket in buckets:
            found.setdefault(bucket, []).append((index, f"{number} {index}\n"))
    groups = []
    for bucket, lines in found.items():
        sources: list[tuple[int, ...]] = [(index,) for index, _ in lines]
        plain = simple and sources == [(index,) for index in range(len(lines))]
        groups.append(Lines(bucket, "".join([line for _, line in lines]).encode(), len(lines),
                            None if plain else sources))
    return groups


@given(BATCHES, st.booleans(), st.booleans())
def test_every_line_leads_to_its_message(batches: list[list[list[str]]], simple: bool, gzip: bool) -> None:
    shared = SharedLines()
    sent: dict[int, int] = {}
    for number, batch in enumerate(batches):
        groups = lines_of(batch, number, simple)
        if groups:
            sent[number] = len(sent)
            range_ = wire.Range(1, wire.Partition(0, number), 0, len(batch) - 1, len(batch), 1)
            points = sum(group.points for group in groups)
            shared.add(wire.LinesPart(range_, len(batch), points, 0, None, []), groups)
    if not sent:
        return
    frames: list[Any] = shared.frames(gzip)
    lines, bodies = wire.read_lines(frames)
    firsts = [sum(part.messages for part in lines.parts[:index]) for index in range(len(lines.parts))]
    seen = 0
    for bucket, body in zip(lines.buckets, bodies, strict=True):
        texts = (decompress(body) if gzip else body).decode().splitlines()
        assert len(texts) == bucket.points
        for line, text in enumerate(texts):
            number, index = map(int, text.split())
            assert bucket.messages_of(line) == (firsts[sent[number]] + index,)
        seen += len(texts)
    assert seen == sum(part.points for part in lines.parts)
