"""Points as the compiled ways write them: column by column, in the messages' order."""

from collections.abc import Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import NamedTuple

from stages.mapping.records.merge import Line


class Written(NamedTuple):
    """Points of a batch, in the messages' order."""

    #: Of each, the index of its message.
    messages: list[int]
    heads: Sequence[str]
    times: Sequence[str]
    #: Each ends in a line break.
    lines: Sequence[str]
    #: None where all go to the configured bucket.
    buckets: list[str] | None
    #: Characters of the lines, at most.
    size: int
    #: Messages that have no field.
    misfits: frozenset[int] = frozenset()
    #: Those of `batch.Points`, where they are known.
    hashes: set[int] | None = None
    #: Messages that were dropped on purpose, where their number is not told otherwise.
    dropped: int = 0


def joined(parts: Sequence[Written]) -> Written:
    """Points of parts of a batch, one part after another."""
    if len(parts) == 1:
        return parts[0]
    hashes: set[int] | None = None
    if all([part.hashes is not None for part in parts]):
        hashes = set[int]().union(*[part.hashes or () for part in parts])
    buckets: list[str] | None = None
    if any([part.buckets is not None for part in parts]):
        buckets = [*chain.from_iterable([part.buckets or repeat("", len(part.lines)) for part in parts])]
    return Written([*chain.from_iterable([part.messages for part in parts])],
                   [*chain.from_iterable([part.heads for part in parts])],
                   [*chain.from_iterable([part.times for part in parts])],
                   [*chain.from_iterable([part.lines for part in parts])],
                   buckets, sum([part.size for part in parts]), hashes=hashes,
                   dropped=sum([part.dropped for part in parts]))


def of_lines(lines: Sequence[Line]) -> Written:
    """Points that were made one by one."""
    return Written([line[0] for line in lines], [line[1] for line in lines], [line[2] for line in lines],
                   [line[3] for line in lines], [line[4] for line in lines], sum([len(line[3]) for line in lines]))


def in_order(parts: Sequence[Written]) -> Written:
    """Points of parts of a batch that lie among each other, in the messages' order."""
    whole = joined(parts)
    if len(parts) == 1 or len(whole.messages) < 2:
        return whole
    take = itemgetter(*_order(whole.messages))
    return whole._replace(
        messages=list(take(whole.messages)), heads=list(take(whole.heads)), times=list(take(whole.times)),
        lines=list(take(whole.lines)), buckets=whole.buckets and list(take(whole.buckets)))


def _order(messages: Sequence[int]) -> list[int]:
    """The places of messages, from the lowest on; those of equal ones stay in order."""
    places = [-1] * (max(messages) + 1)
    for place, message in enumerate(messages):
        places[message] = place
    if -1 in places:
        places = [place for place in places if place >= 0]
    return places if len(places) == len(messages) else sorted(range(len(messages)), key=messages.__getitem__)
