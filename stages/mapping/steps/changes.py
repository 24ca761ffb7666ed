"""`do = "only_changed"`: leaves out messages that say what the last one of their series said.

What was last written is kept by series, for each partition by itself, and only as long as this encoder gets every
message of the partition: behind a gap, another encoder may have written something else in between, so the state of the
partition is forgotten and the next message of each series is written. Batches are routed so that this is rare
(`stages.ingest.batch_sender`). It is never wrong, whatever is delivered again, and by whom.
"""

from typing import Final

import msgspec
import xxhash

from pipeline.config.steps_schema import OnlyChangedStep, listed
from stages.mapping.budget import Budget
from stages.mapping.records.series import Origin
from stages.mapping.steps.context import Context, exact_path, path_of
from stages.mapping.steps.errors import BadStep, NothingThere
from stages.mapping.steps.keys import copied
from stages.mapping.steps.paths import MISSING, Document, Kept, remove

_sorted: Final = msgspec.json.Encoder(decimal_format="number", order="sorted", enc_hook=repr)
#: Bytes of what is kept of a series, about.
_SERIES_BYTES: Final = 250


class OnlyChanged:
    """The step, with its state."""

    def __init__(self, step: OnlyChangedStep, budget: Budget) -> None:
        """The state shares the `budget` of caches. Raises BadStep."""
        self._by = [exact_path(path, "by") for path in step.by]
        self._paths = [path_of(path) for path in listed(step.path)] if step.path else []
        self._kept = Kept(self._paths)
        self._ignored = [path_of(path, "ignore") for path in (*step.ignore, *step.by)]
        if step.ignore and self._paths:
            raise BadStep("ignore", "not with path, which names all that counts")
        #: Keys that are left out where they are all at the outermost level; None otherwise.
        self._flat = frozenset([path.keys[0] for path in self._ignored]) if all(
            path.is_exact and len(path.keys) == 1 for path in self._ignored) else None
        self._micros = step.longest_silence_ms * 1000
        #: Partition -> series -> (what it said, when it was written).
        self._said: dict[int, dict[bytes, tuple[bytes, int]]] = {}
        self._share = budget.share(self._said.clear)
        #: Partition -> the offset that the state fits.
        self._next: dict[int, int] = {}
        self._at = -1

    def begin(self, origin: Origin) -> None:
        """The next message, of which there may be several parts. Forgets the partition's state behind a gap."""
        if self._next.get(origin.partition) != origin.offset:
            self._said.pop(origin.partition, None)
        self._next[origin.partition] = origin.offset + 1

    def __call__(self, document: Document, context: Context) -> Document | None:
        """The message, or None if it says nothing new. Raises NothingThere."""
        values = [path.get(document) for path in self._by]
        if MISSING in values or None in values:
            raise NothingThere(", ".join([path.text for path, value in zip(self._by, values, strict=True)
                                          if value is MISSING or value is None]))
        origin = context.origin
        series = _digest(values)
        says, now = _digest(self._compared(document)), origin.timestamp or origin.arrival or 0
        said = self._said.setdefault(origin.partition, {})
        known = said.get(series)
        if known is not None and known[0] == says and 0 <= now - known[1] < self._micros:
            return None
        if known is not None:
            said[series] = says, now
        elif self._share.takes(_SERIES_BYTES):
            # The budget may just have been emptied, with the state of this partition.
            self._said.setdefault(origin.partition, {})[series] = says, now
        return document

    def _compared(self, document: Document) -> Document:
        if self._paths:
            return self._kept(document)
        if self._flat is not None:
            flat = self._flat
            return {key: value for key, value in document.items() if key not in flat}
        rest: Document = copied(document)
        for path in self._ignored:
            remove(path.places(rest))
        return rest


def _digest(value: object) -> bytes:
    try:
        text = _sorted.encode(value)
    except (OverflowError, UnicodeEncodeError):  # integers beyond 64 bits, half surrogate pairs
        text = repr(value).encode("utf-8", "surrogatepass")
    return xxhash.xxh3_128_digest(text)

