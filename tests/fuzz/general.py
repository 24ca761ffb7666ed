"""The compiled ways against the exact rules, for documents of no fixed shape: with a type guard, over many batches."""

import re
from collections.abc import Mapping
from random import Random
from typing import Any

from msgspec.structs import replace

from pipeline.config.schema import MappingConfig
from pipeline.fields.types import FieldTypeRegistry
from pipeline.points.escape import Unwritable
from pipeline.points.field_type import FieldType
from pipeline.wire import payload_frame
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.mapping.records.type_guard import TypeGuard
from stages.mapping.reject import Reject
from tests.fuzz.documents import Documents, mapping
from tests.support.points import normal

_TIME_MICROS = 1_700_000_000_000_000
_DIGITS = (b"0", b"1", b"2", b"5", b"9", b"11")


class OneSide:
    """An encoder with all that it tells others."""

    def __init__(self, config: MappingConfig, precision: Any, compiled: bool, guarded: bool,
                 templates: bool = False) -> None:
        self.registry = FieldTypeRegistry()
        self.encoder = Encoder(config, precision, "stream", "topic", self._guard if guarded else None)
        self.encoder.is_compiled = self.encoder.is_compiled and compiled
        self.encoder.templates.is_possible = self.encoder.templates.is_possible and templates
        self.encoder.templates.least_messages, self.encoder.templates.learned_after = 2, 5
        self.seen: set[tuple[str, str]] = set()
        self.encoder.rules.heads.seen = lambda key, value: self.seen.add((key, value))
        self.types: dict[Any, FieldType] = {}
        self.by_general = 0

    def _guard(self, bucket: str) -> TypeGuard:
        def ask(measurement: str, kinds: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
            decided = self.registry.decide(bucket, measurement, kinds)[0]
            self.types.update({(bucket, measurement, field): kind for field, kind in decided.items()})
            return decided

        return TypeGuard(ask)

    def encode(self, payloads: list[bytes], origin: BatchOrigin) -> Any:
        """All that has a meaning."""
        encoder = self.encoder
        found = None
        if encoder.is_compiled:
            found = encoder.encode_array(payload_frame.joined(payloads), len(payloads), origin)
        found = found or encoder.encode(payloads, origin)
        return normal(found), encoder.rules.notices.take(), self.types


def try_documents(seed: int, counts: dict[str, int] | None = None) -> list[str]:
    """What is wrong with the documents and the mapping that a seed makes; empty where nothing is."""
    random = Random(seed)
    config = mapping(random)
    if random.random() < 0.4:  # what messages can have templates under
        config = replace(config, explode="", rules=(), bucket_template="", header_tags={}, allowed_buckets=())
    precision, guarded = random.choice(("ns", "ms", "s")), random.random() < 0.6
    try:
        templates = random.random() < 0.5
        exact, ours = (OneSide(config, precision, compiled, guarded, templates) for compiled in (False, True))
    except (Unwritable, Reject):
        return []
    documents = [Documents(random, config) for _ in range(random.choice((1, 1, 2)))]
    first = 0
    for number in range(5):
        payloads = [random.choice(documents).message() for _ in range(random.choice((1, 2, 10, 40)))]
        if templates:  # some that are alike, their digits exchanged
            payloads += [b"".join([random.choice((part, random.choice(_DIGITS))) if part.isdigit() else part
                                   for part in re.split(rb"([0-9])", payload)])
                         for payload in random.choices(payloads, k=5) * 3]
            random.shuffle(payloads)
        if number == 3 and random.random() < 0.2 and config.tag_fields:
            for side in (exact, ours):
                side.encoder.over_limit(frozenset(config.tag_fields[:1]))
        names = config.header_names()
        headers = [tuple([random.choice(("", "h1", "h2")) for _ in names]) for _ in payloads] if names else None
        origin = BatchOrigin(2, first, None, [_TIME_MICROS + random.randrange(3) for _ in payloads],
                             _TIME_MICROS + 1_000_000, headers)
        first += len(payloads)
        expected, found = exact.encode(payloads, origin), ours.encode(payloads, origin)
        if found != expected:
            return [f"batch {number}: {found}\n  instead of {expected}\n  for {payloads}\n  by {config} {precision} "
                    f"guarded: {guarded}"]
        if exact.seen != ours.seen:
            return [f"batch {number}: tags {exact.seen ^ ours.seen} for {payloads} by {config}"]
        if counts is not None:
            counts["messages"] = counts.get("messages", 0) + len(payloads)
    if counts is not None:
        counts["general"] = counts.get("general", 0) + ours.encoder.general.written
        counts["templates"] = counts.get("templates", 0) + ours.encoder.templates.written
    return []

