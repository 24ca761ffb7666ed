"""Decodes payloads that are not one JSON object each: compressed, in another format, or an array of objects."""

from collections.abc import Collection, Sequence, Set
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from stages.mapping.batch import BatchOrigin, Encoded, Lines, Rejected
from stages.mapping.budget import cost_of
from stages.mapping.compiled.written import Written
from stages.mapping.cpu_limit import CpuLimit, TooSlow
from stages.mapping.formats import each, placed_transcoder, quick, transcoder
from stages.mapping.formats.column_texts import ReadColumns
from stages.mapping.formats.compression import decompressor
from stages.mapping.formats.line_cache import KnownLine, KnownLines
from stages.mapping.formats.line_protocol import PassedLine, lines
from stages.mapping.limits import Limits, values_of
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.merge import Line
from stages.mapping.records.series import Origin
from stages.mapping.reject import Dropped, Reject, and_more, failure, shown
from stages.mapping.steps.runner import Steps


class Opened(NamedTuple):
    """A batch of messages as a batch of JSON objects, any number for each message."""

    payloads: list[bytes]
    #: Origin of the payloads.
    origin: BatchOrigin
    #: For each payload, the index of its message, and its name in errors, such as "line 3: ".
    messages: list[int]
    names: list[str]
    #: Lines that pass through, with the indices of their messages.
    lines: list[Line]
    #: Messages that could not be decoded, with their indices.
    rejects: list[Rejected]
    #: Bad objects of messages that have others: the number of payloads before it, and the reject.
    bad: list[tuple[int, Rejected]]
    #: Number of messages.
    total: int
    #: Each message is one object.
    is_one_to_one: bool = False
    #: Lines that pass through, and were recognised.
    passed: Written | None = None


#: Payloads that are read at once, at most.
_AT_ONCE: Final = 500


class _SomeLines(Reject):
    """Some lines of a message are bad; the others are written."""


class PayloadDecoder:
    """Decodes the payloads of one mapping. Not thread-safe."""

    def __init__(self, rules: RecordMapper) -> None:
        """Raises `formats.errors.BadFormat`."""
        config = rules.config
        self._rules = rules
        self._max_bytes = config.max_payload_bytes
        self._decompress = None
        if config.compression != "none":
            self._decompress = decompressor(config.compression, config.max_payload_bytes)
        self._passes_lines = config.format == "line_protocol"
        self._transcode = transcoder(config)
        #: Of formats that need the message's headers and topic.
        self._transcode_placed = placed_transcoder(config, rules.place[1])
        #: The quick way of the format.
        self.quick = quick(config)
        self._limits = Limits.of(config)
        self._steps = Steps(config, *rules.place, rules.notices, budget=rules.budget) if config.has_steps() else None
        self._always = (config.format != "json" or config.schema_header != "none" or self._decompress is not None
                        or self._steps is not None)
        #: Whether payloads are JSON as they come.
        self._is_plain = config.format == "json" and config.schema_header == "none" and self._decompress is None
        #: Headers that points need; the others are for the steps.
        self._point_headers = len(config.point_headers())
        self._counted: set[str] = set()
        self._counted_share = rules.budget.share(self._counted.clear)
        self._known = KnownLines(config.line_protocol_precision, rules.precision, rules.budget)
        #: Lines that were recognised, and lines that were parsed.
        self._known_lines = self._parsed_lines = 0

    def take_passed(self) -> tuple[int, int]:
        """How many lines of `line_protocol` were recognised, and how many parsed, since this was called last."""
        found = self._known_lines, self._parsed_lines
        self._known_lines = self._parsed_lines = 0
        return found

    def is_needed(self, payloads: Sequence[bytes], as_array: bool = False) -> bool:
        """Whether the payloads have to be decoded. False may be wrong for some of them, which may be arrays.

        With `as_array` they are one array that was made from objects.
        """
        return self._always or sum(map(len, payloads)) > self._max_bytes < max(map(len, payloads)) or (
            not as_array and bool(payloads) and payloads[0][:1] == b"[")

    @property
    def columns(self) -> ReadColumns | None:
        """Reads payloads by column; None where the format cannot, or the steps change each message by itself."""
        if self.quick is None or self._steps is not None or self._decompress is not None:
            return None
        return self.quick.columns

    def opened(self, payloads: Sequence[bytes], origin: BatchOrigin, cpu: CpuLimit,
               written: Set[int] = frozenset()) -> Opened:
        """The objects in the messages, and rejects for messages that cannot be decoded; b"" stands for messages that
        are `written` already. Raises nothing.
        """
        if written:
            rest = [index for index in range(len(payloads)) if index not in written]
            texts = dict(zip(rest, self._quickly([payloads[index] for index in rest], cpu), strict=False))
            return self._opened_one_by_one(payloads, origin, cpu, list(map(texts.get, range(len(payloads)))), written)
        quickly, name = self._quickly(payloads, cpu), "" if self.quick is None else self.quick.name
        if self._steps is not None:
            quickly = self._with_steps(payloads, quickly, origin, cpu)
        if quickly and None not in quickly and b"" not in quickly:
            return Opened(quickly, origin, list(range(len(payloads))), [name] * len(payloads), [], [], [],  # type: ignore[arg-type]
                          len(payloads), is_one_to_one=True)
        return self._opened_one_by_one(payloads, origin, cpu, quickly, frozenset())

    def _opened_one_by_one(self, payloads: Sequence[bytes], origin: BatchOrigin, cpu: CpuLimit,
                           quickly: Sequence[bytes | None], written: Set[int]) -> Opened:
        name = "" if self.quick is None else self.quick.name
        passed, done = self._pass_quickly(payloads, cpu)
        if passed is not None and len(done) == len(payloads):  # each of them
            return Opened([], origin, list(range(len(payloads))), [""] * len(payloads), [], [], [], len(payloads),
                          passed=passed)
        out = Opened([], origin, [], [], [], [], [], len(payloads), passed=passed)
        for index, payload in enumerate(payloads):
            if index in done:
                continue
            if index in written:
                out.payloads.append(b"")
                out.messages.append(index)
                out.names.append("")
                continue
            if quickly and (text := quickly[index]) is not None:
                if not text:
                    continue
                out.payloads.append(text)
                out.messages.append(index)
                out.names.append(name)
                continue
            before, lines_before = len(out.payloads), len(out.lines)
            try:
                cpu.begin()
                self._open(payload, index, origin, out, cpu)
            except (Exception, TooSlow) as error:
                del out.payloads[before:], out.messages[before:], out.names[before:]
                while out.bad and out.bad[-1][1].at == index:
                    out.bad.pop()
                if not isinstance(error, _SomeLines):
                    del out.lines[lines_before:]
                if isinstance(error, Dropped):
                    continue
                out.rejects.append(Rejected(index, *failure(error).args))
        if self._passes_lines:
            return out._replace(messages=list(range(len(payloads))), names=[""] * len(payloads))
        return out._replace(origin=replace(
            origin,
            offsets=[origin.offsets[index] if origin.offsets else origin.first + index for index in out.messages],
            timestamps=origin.timestamps and [origin.timestamps[index] for index in out.messages],
            headers=origin.headers and self._point_headers and [origin.headers[index][:self._point_headers]
                                                              for index in out.messages] or None))

    def _quickly(self, payloads: Sequence[bytes], cpu: CpuLimit) -> list[bytes | None]:
        """The text of the one object in each payload; None where `_open` has to look. Empty where there is no quick
        way, or it does not come to an end.
        """
        if self.quick is None:
            return []
        most, texts = min(self._limits.expanded, 2 * self._limits.values - 1), list[bytes | None]()
        try:
            for begin in range(0, len(payloads), _AT_ONCE):
                cpu.begin()
                some: Sequence[Any] = payloads[begin:begin + _AT_ONCE]
                if self._decompress is not None:
                    some = each(self._decompress, some, (Exception,))
                if None not in some and max(map(len, some)) <= self._max_bytes:
                    texts += self.quick.texts(some)
                    continue
                known = [payload if payload is not None and len(payload) <= self._max_bytes else None
                         for payload in some]
                found = iter(self.quick.texts([payload for payload in known if payload is not None]))
                texts += [None if payload is None else next(found) for payload in known]
        except (Exception, TooSlow):
            return []
        if max(map(len, filter(None, texts)), default=0) > most:
            texts = [text if text is not None and len(text) <= most else None for text in texts]
        return texts

    def _with_steps(self, payloads: Sequence[bytes], quickly: Sequence[bytes | None], origin: BatchOrigin,
                    cpu: CpuLimit) -> list[bytes | None]:
        """The same behind the steps; b"" for a message that they leave out."""
        if self._steps is None or not self._steps.is_single or not quickly and not self._is_plain:
            return []
        return self._steps.singles(quickly or payloads, origin, cpu)

    def _open(self, payload: bytes, index: int, origin: BatchOrigin, out: Opened, cpu: CpuLimit) -> None:
        if self._decompress is not None:
            payload = self._decompress(payload)
        if len(payload) > self._max_bytes:
            raise Reject("too_large", f"{len(payload)} bytes, more than max_payload_bytes = {self._max_bytes}")
        if self._passes_lines:
            self._pass_lines(payload, index, origin, out)
            return
        first, bad, size = len(out.payloads), len(out.bad), 0
        if self._transcode_placed is not None:
            objects = self._transcode_placed(payload, origin.of(index))
        else:
            objects = self._transcode(payload)
        if self._steps is not None:
            objects = self._steps.objects(objects, origin.of(index), cpu)
        for name, text in objects:
            if isinstance(text, Reject):
                out.bad.append((len(out.payloads), Rejected(index, text.reason, name + text.detail)))
                self._limits.check_points(len(out.bad) - bad)
                continue
            size += len(text)
            if size > self._limits.expanded:
                self._limits.check_bytes(size)
            out.names.append(name)
            out.messages.append(index)
            out.payloads.append(text)
            if len(out.payloads) - first > self._limits.points:
                self._limits.check_points(len(out.payloads) - first)
        if size // 2 >= self._limits.values:
            self._limits.check_values(sum([values_of(text) for text in out.payloads[first:]]))
        is_empty = len(out.payloads) == first and len(out.bad) == bad
        if is_empty and self._rules.config.on_no_fields == "reject" and not (self._steps and self._steps.dropped):
            raise Reject("no_fields", "the payload contains no object" if self._steps is None else
                         "the steps make no message of the payload: it contains no object, or its arrays are empty")

    def _pass_quickly(self, payloads: Sequence[bytes], cpu: CpuLimit) -> tuple[Written | None, Collection[int]]:
        """Lines that were recognised, and the indices of the messages all of whose lines were."""
        if not self._passes_lines or self._rules.heads.over or self._decompress is not None or not payloads:
            return None, frozenset()
        most = max(map(len, payloads))
        if most > self._max_bytes or most // 4 >= self._limits.values:
            return None, frozenset()
        cpu.begin()
        try:
            ends = b"".join([payload[-1:] for payload in payloads])
            if ends != b"\n" * len(payloads):
                payloads = [payload if payload[-1:] == b"\n" else payload + b"\n" for payload in payloads]
            found = self._known.find_all(b"".join(payloads).decode())
        except (UnicodeDecodeError, TooSlow):
            return None, frozenset()
        messages = list(range(len(payloads)))
        if len(found.lines) > len(payloads):
            counts = [payload.count(b"\n") for payload in payloads]
            if max(counts) > self._limits.points:
                return None, frozenset()
            messages = list(chain.from_iterable(map(repeat, messages, counts)))
        heads, times, lines, unknown = found
        left_out = {messages[index] for index in unknown}
        if left_out:
            keep = [index for index, message in enumerate(messages) if message not in left_out]
            messages = [messages[index] for index in keep]
            heads, times, lines = ([column[index] for index in keep] for column in (heads, times, lines))
        self._known_lines += len(lines)
        done = range(len(payloads)) if not left_out else frozenset(messages)
        return Written(messages, heads, times, lines, None, 0) if lines else None, done

    def _pass_lines(self, payload: bytes, index: int, origin: BatchOrigin, out: Opened) -> None:
        """Adds the valid lines of a payload, also if others of it are invalid."""
        config = self._rules.config
        reject: Reject | None = None
        found = wrong = 0
        self._limits.check_values(payload.count(b"=") if len(payload) // 4 >= self._limits.values else 0)
        known = None if self._rules.heads.over else self._known
        for begin, line in lines(payload, config.line_protocol_precision, self._rules.precision, self._limits, known):
            found += 1
            self._limits.check_points(found)
            if isinstance(line, KnownLine):
                out.lines.append((index, line.head, line.time, line.text, ""))
                self._known_lines += 1
                continue
            self._parsed_lines += 1
            try:
                if isinstance(line, Reject):
                    raise line
                out.lines.append(self._passed(line, index, origin.of(index)))
            except Exception as error:
                wrong += 1
                if reject is None:
                    number = payload.decode("utf-8-sig").count("\n", 0, begin) + 1
                    failed = failure(error)
                    reject = _SomeLines(failed.reason, f"line {number}: {failed.detail}")
        if reject is not None:
            raise _SomeLines(reject.reason, reject.detail + and_more(wrong))
        if not found and config.on_no_fields == "reject":
            raise Reject("no_fields", "the payload contains no line")

    def _passed(self, line: PassedLine, index: int, origin: Origin) -> Line:
        rules, head, fields = self._rules, line.head, line.fields
        text = head.text
        rules.notices.drop()
        if line.twice:
            rules.notices.clash(f"the field {shown(line.twice)} occurs twice in one line")
        if text not in self._counted:
            if self._counted_share.takes(cost_of(text)):
                self._counted.add(text)
            for key, piece in head.tags.items():
                rules.heads.seen(key, piece)
        over = bool(rules.heads.over)
        if over:
            tags = dict(head.tags)
            moved = rules.heads.moved(tags)
            for lead in moved.keys() & fields.keys():
                rules.notices.clash(f"{shown(lead[:-1])} is a field, and a tag over the limit becomes the same field")
            fields = {**fields, **moved}
            text = head.measurement + "".join([tags[key] for key in sorted(tags)])
        if rules.guard is not None:
            fields = rules.guard.converted(head.measurement, fields)
        if not over and line.time is not None and fields == line.fields:
            self._known.learn(head.came, head.measurement, text, fields)
        time = str(line.time if line.time is not None else rules.time({}, origin))
        body = ",".join([lead + value for lead, value in fields.items()])
        rules.notices.place(origin.place)
        return index, text, time, f"{text} {body} {time}\n", ""


def in_messages(encoded: Encoded, opened: Opened) -> Encoded:
    """The result of encoding decoded payloads, with the indices of their messages."""
    if opened.is_one_to_one and not encoded.rejects:
        return encoded
    groups = []
    for bucket, body, points, sources in encoded.groups:
        if (opened.lines or opened.passed) and sources is None:
            groups.append(Lines(bucket, body, points, None))
            continue
        messages: list[tuple[int, ...]] = [(message,) for message in opened.messages] if sources is None else [
            tuple(dict.fromkeys([opened.messages[index] for index in source])) for source in sources]
        contiguous = all(source == (index,) for index, source in enumerate(messages))
        groups.append(Lines(bucket, body, points, None if contiguous else messages))
    rejects = {reject.at: reject for reject in opened.rejects} | _first_of_each(encoded, opened)
    written: set[int] = set()
    for group in groups:
        written.update(range(group.points) if group.sources is None else chain.from_iterable(group.sources))
    return replace(encoded, groups=groups, rejects=sorted(rejects.values()),
                   dropped=opened.total - len(written | rejects.keys()))


def _first_of_each(encoded: Encoded, opened: Opened) -> dict[int, Rejected]:
    """For each message with bad objects the reject of the first one, with the number of the others."""
    found: dict[int, list[tuple[int, int, Rejected]]] = {}
    for before, reject in opened.bad:
        found.setdefault(reject.at, []).append((before, 0, reject))
    for at, reason, detail in encoded.rejects:
        message = opened.messages[at]
        found.setdefault(message, []).append((at, 1, Rejected(message, reason, opened.names[at] + detail)))
    firsts = {message: min(rejects)[2] for message, rejects in found.items()}
    return {message: first._replace(detail=first.detail + and_more(len(found[message])))
            for message, first in firsts.items()}
