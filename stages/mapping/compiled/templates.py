"""The templates of one topic: messages of a batch that are written alike are cut together, each kind by its template.

What a message has beside its digits tells its kind: `{"type":"door","open":true,"battery":57}` is all but the 57. Which
template a kind has is learned when enough of its messages were met. A template proves each message that it cuts: two
kinds that only look alike here do no harm.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from pipeline.wire import payload_frame
from stages.mapping.compiled.routed import RoutedTemplate, SharedSeries, is_routed
from stages.mapping.compiled.supported import can_have_templates
from stages.mapping.compiled.template import learn
from stages.mapping.compiled.uniform_batch import BatchTemplate, SharedHeads
from stages.mapping.compiled.written import Written
from stages.mapping.cpu_limit import CpuLimit
from stages.mapping.records.mapper import RecordMapper

#: Left out of what tells a message's kind: the characters of numbers, of identifiers, and of true and false.
_DIGITS: Final = b"0123456789abcdefABCDEF.+-truefals"
#: A template is used for so many messages of a batch, at least: each use costs about as much as 10 of them.
LEAST_MESSAGES: Final = 16
#: To learn one costs as much as to write 200 messages: it is done for a kind that had as many.
LEARNED_AFTER: Final = 200
#: So many are learned at once, without that.
_FIRST: Final = 2
#: Templates, and kinds that are counted, at most; the longest payload that has a kind, bytes.
MAX_TEMPLATES: Final = 64
_MAX_COUNTED: Final = 256
_MAX_BYTES: Final = 16_384
#: Where an odd message is among those of one kind they are tried in so many pieces, all but one of which may fit.
_PIECES: Final = 8
#: Batches between two attempts, at most, where less than half of the messages have templates.
_MAX_PAUSE: Final = 64
#: Batches after which a template that was not used is forgotten, and that a kind has none.
_FORGET_AFTER: Final = 500


class _Kind(Struct, eq=False):
    """What is known of one kind of messages."""

    #: None: it has none.
    template: BatchTemplate | RoutedTemplate | None
    #: Number of the last batch with it, and of that after which it was learned.
    used: int
    learned: int
    #: Whether messages of a batch were written by its template.
    has_fitted: bool = False


class Templates:
    """The templates of one topic. Not thread-safe."""

    def __init__(self, rules: RecordMapper, cpu: CpuLimit) -> None:
        self._rules = rules
        self._cpu = cpu
        #: Whether messages can have templates at all under the mapping.
        self.is_possible = can_have_templates(rules)
        self._kinds: dict[bytes, _Kind] = {}
        #: Whether a batch can be written by one template throughout, without being looked at.
        self.can_be_uniform = self.is_possible and not is_routed(rules)
        self._heads = SharedHeads()
        self._series: SharedSeries = {}
        self._counts: Counter[bytes] = Counter()
        #: Kinds of the batch at hand whose templates are to be learned, and the indices of their messages.
        self._wanted: list[tuple[bytes, list[int]]] = []
        self._batches = 0
        self._until = 0
        self._pause = 1
        self.least_messages, self.learned_after = LEAST_MESSAGES, LEARNED_AFTER
        #: How often a template was learned, and how often forgotten.
        self.learned = self.forgotten = 0
        #: Messages that were written by templates.
        self.written = 0

    def __len__(self) -> int:
        return sum([kind.template is not None for kind in self._kinds.values()])

    def clear(self) -> None:
        """Forgets all: messages are to be written otherwise from now on."""
        self._kinds.clear()
        self._series.clear()

    def sources(self) -> Iterator[str]:
        """The code of each template, for people."""
        return (kind.template.source for kind in self._kinds.values() if kind.template is not None)

    def learn(self, payload: bytes, partition: int) -> BatchTemplate | None:
        """The template of messages like this one, learned if need be; None where they have none."""
        kind = _kind_of(payload)
        if len(payload) > _MAX_BYTES or not self.can_be_uniform:
            return None
        template = self._learn(kind, payload, partition).template
        return template if isinstance(template, BatchTemplate) else None

    def encode(self, payloads: Sequence[bytes], times: Sequence[int] | None, partition: int,
               headers: Sequence[tuple[str, ...]] | None = None) -> tuple[list[Written], Sequence[int]]:
        """The points of those messages that have templates, and the indices of the others, in order."""
        everything = range(len(payloads))
        if not self.is_possible or len(payloads) < self.least_messages:
            return [], everything
        self._until -= 1
        if self._until > 0:
            return [], everything
        self._batches += 1
        self._wanted = []
        self._cpu.begin()
        written: list[Written] = []
        left: list[int] = []
        for kind, indices in _by_kind(payloads).items():
            known = self._of(kind, indices)
            todo = [indices]
            while todo:
                some, made = todo.pop(0), None
                if known is not None and known.template is not None and len(some) >= self.least_messages:
                    made = self._written(known.template, payloads, some, times, partition, headers, not left)
                    if made is None and some is indices and known.has_fitted:
                        size = -(-len(some) // _PIECES)
                        todo = [some[at:at + size] for at in range(0, len(some), size)]
                        continue
                    known.has_fitted |= made is not None
                if made is None:
                    left += some
                else:
                    written.append(made)
        done = len(payloads) - len(left)
        self.written += done
        self._pause = 1 if 2 * done >= len(payloads) or self._wanted else min(2 * self._pause, _MAX_PAUSE)
        self._until = 0 if self._pause == 1 else self._pause
        left.sort()
        return written, left

    def _written(self, template: BatchTemplate | RoutedTemplate, payloads: Sequence[bytes], indices: list[int],
                 times: Sequence[int] | None, partition: int, headers: Sequence[tuple[str, ...]] | None,
                 may_ask: bool) -> Written | None:
        """The points of the messages of one kind; None where they must go another way."""
        self._cpu.begin()
        some = payloads if len(indices) == len(payloads) else [payloads[index] for index in indices]
        own = times if times is None or some is payloads else [times[index] for index in indices]
        if isinstance(template, RoutedTemplate):
            theirs = headers if headers is None or some is payloads else [headers[index] for index in indices]
            made = template.written(payload_frame.joined(some), len(some), own, theirs, partition, may_ask)
            return made and made._replace(messages=[indices[at] for at in made.messages])
        if headers is not None:
            return None
        points = template.lines(payload_frame.joined(some), len(some), own, partition, distinct=False, may_ask=may_ask)
        if points is None:
            return None
        return Written(indices, points.heads, points.times, points.lines, None, sum(map(len, points.lines)),
                       hashes=points.hashes)

    def learn_wanted(self, payloads: Sequence[bytes], partition: int, bad: set[int]) -> None:
        """Learns the templates that the last batch has lacked; all of it is written, but for what is `bad`."""
        for kind, indices in self._wanted:
            example = next((index for index in indices if index not in bad), None)
            if example is not None:
                self._learn(kind, payloads[example], partition)
        self._wanted = []

    def _of(self, kind: bytes, indices: list[int]) -> _Kind | None:
        """What is known of the kind of these messages of the batch."""
        known = self._kinds.get(kind)
        if known is not None and known.template is None and known.learned < self._batches - _FORGET_AFTER:
            del self._kinds[kind]  # perhaps there is one now
            known = None
        if known is not None:
            known.used = self._batches
            return known
        if kind:
            self._counts[kind] += len(indices)
            if self._counts[kind] >= self.learned_after or len(self._kinds) + len(self._wanted) < _FIRST:
                self._wanted.append((kind, indices))
            elif len(self._counts) > _MAX_COUNTED:
                self._counts.clear()
        return None

    def _learn(self, kind: bytes, payload: bytes, partition: int) -> _Kind:
        known = self._kinds.get(kind)
        if known is None:
            self._counts.pop(kind, None)
            self._forget()
            self.learned += 1
            template = learn(self._rules, payload, partition, self._heads, self._series)
            known = self._kinds[kind] = _Kind(template, self._batches, self._batches)
        return known

    def _forget(self) -> None:
        """Makes room for another one, and forgets those that are not met any more."""
        oldest = min(self._kinds, key=lambda kind: self._kinds[kind].used, default=b"")
        for kind in [kind for kind, known in self._kinds.items() if known.used < self._batches - _FORGET_AFTER
                     or len(self._kinds) >= MAX_TEMPLATES and kind == oldest]:
            self.forgotten += 1
            del self._kinds[kind]


def _kind_of(payload: bytes) -> bytes:
    return payload.translate(None, _DIGITS)


def _by_kind(payloads: Sequence[bytes]) -> dict[bytes, list[int]]:
    """The indices of the messages of each kind, in the order in which the kinds are met; b"": has none."""
    kinds = payload_frame.SEPARATOR.join(payloads).translate(None, _DIGITS).split(payload_frame.SEPARATOR)
    if len(kinds) != len(payloads):
        kinds = list(map(_kind_of, payloads))
    if max(map(len, kinds)) > _MAX_BYTES:
        kinds = [kind if len(kind) <= _MAX_BYTES else b"" for kind in kinds]
    found: dict[bytes, list[int]] = {kind: [] for kind in dict.fromkeys(kinds)}
    if len(found) == 1:
        return {kinds[0]: list(range(len(kinds)))}
    appends = {kind: indices.append for kind, indices in found.items()}
    for index, kind in enumerate(kinds):
        appends[kind](index)
    return found
