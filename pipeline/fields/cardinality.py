"""How many distinct values each tag has, counted over all encoders. Pure; the coordinator keeps it."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from pipeline.config.schema import Config
from pipeline.fields.hyperloglog import HyperLogLog, is_sketch

#: Tags counted for each sink, at most, and their keys' longest: those of a tag map could be any.
MAX_TAGS: Final = 1_000
MAX_TAG_CHARACTERS: Final = 1_000


class TagCardinality:
    """The sketches of one encoder for one sink; those that have changed are sent now and then."""

    def __init__(self) -> None:
        self._sketches: dict[str, HyperLogLog] = {}
        self._changed: set[str] = set()

    def add(self, tag: str, value: str) -> None:
        """Counts a value that may have been counted before."""
        sketch = self._sketches.get(tag)
        if sketch is None:
            if len(self._sketches) >= MAX_TAGS or len(tag) > MAX_TAG_CHARACTERS:
                return
            sketch = self._sketches[tag] = HyperLogLog()
        if sketch.add(value):
            self._changed.add(tag)

    def changed(self) -> dict[str, bytes]:
        """The registers of the sketches that have changed since the last call."""
        changed = {tag: bytes(self._sketches[tag].registers) for tag in self._changed}
        self._changed.clear()
        return changed

    def all(self) -> dict[str, bytes]:
        """The registers of all sketches."""
        return {tag: bytes(sketch.registers) for tag, sketch in self._sketches.items()}


class Cardinality:
    """The sketches of all encoders, by sink, and which tags have more values than `max_tag_values`."""

    def __init__(self, config: Config) -> None:
        self._limits = [sink.mapping.max_tag_values for sink in config.all_sinks()]
        self._sketches: dict[tuple[int, str], HyperLogLog] = {}
        #: By sink: how many tags are counted.
        self._counts: Counter[int] = Counter()
        #: By sink: the tags over the limit.
        self.over: dict[int, set[str]] = {}

    def merge(self, sink: int, sketches: Mapping[str, bytes]) -> list[tuple[str, int]]:
        """Adds an encoder's sketches. The tags that are over the limit for the first time, with their estimates.

        Of a sketch that is none, and of tags beyond `MAX_TAGS`, nothing is kept.
        """
        new = []
        for tag, registers in sketches.items():
            if not is_sketch(registers) or len(tag) > MAX_TAG_CHARACTERS:
                continue
            sketch = self._sketches.get((sink, tag))
            if sketch is None:
                if self._counts[sink] >= MAX_TAGS:
                    continue
                self._counts[sink] += 1
                sketch = self._sketches[sink, tag] = HyperLogLog()
            sketch.merge(registers)
            over = self.over.setdefault(sink, set())
            if tag not in over and (count := round(sketch.estimate())) > self._limits[sink] > 0:
                over.add(tag)
                new.append((tag, count))
        return new
