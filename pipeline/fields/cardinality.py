"""Approximate number of distinct values of each tag, over all encoders. Pure."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from pipeline.config.schema import Config
from pipeline.fields.hyperloglog import HyperLogLog, is_sketch

#: Tags counted for each sink, and characters of their keys, at most: the keys of a tag map are unbounded.
MAX_TAGS: Final = 1_000
MAX_TAG_CHARACTERS: Final = 1_000


class TagCardinality:
    """The sketches of one encoder for one sink."""

    def __init__(self) -> None:
        self._sketches: dict[str, HyperLogLog] = {}
        self._changed: set[str] = set()

    def add(self, tag: str, value: str) -> None:
        """Counts a value; one that was counted before changes nothing."""
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
    """The merged sketches of all encoders, by sink, and the tags with more values than `max_tag_values`. The
    coordinator holds it."""

    def __init__(self, config: Config) -> None:
        self.limit(config)
        self._sketches: dict[tuple[int, str], HyperLogLog] = {}
        #: Number of tags counted, by sink.
        self._counts: Counter[int] = Counter()
        #: The estimates of the tags, by sink.
        self.estimates: dict[int, dict[str, int]] = {}
        #: The tags over the limit, by sink.
        self.over: dict[int, set[str]] = {}

    def limit(self, config: Config) -> None:
        """Takes the limits of a configuration. Tags that are over one stay so."""
        self._limits = [sink.mapping.max_tag_values for sink in config.all_sinks()]

    def merge(self, sink: int, sketches: Mapping[str, bytes]) -> list[tuple[str, int]]:
        """Merges an encoder's sketches. Returns the tags that are over the limit for the first time, with their
        estimates.

        Malformed sketches, and tags beyond `MAX_TAGS`, are ignored.
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
            count = self.estimates.setdefault(sink, {})[tag] = round(sketch.estimate())
            if tag not in over and count > self._limits[sink] > 0:
                over.add(tag)
                new.append((tag, count))
        return new
