"""Runs the steps of a mapping on the objects of its messages: JSON in, JSON out, any number for each."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from pipeline.config.schema import MappingConfig
from pipeline.config.steps_schema import (
    AnyStep,
    CopyStep,
    DropStep,
    ExcludeStep,
    ExplodeStep,
    FunctionStep,
    IncludeStep,
    JqStep,
    LookupStep,
    MatchStep,
    MoveStep,
    OnlyChangedStep,
    PairsStep,
    ParseStep,
    PivotStep,
    RenameStep,
    ReplaceStep,
    ScaleStep,
    SetStep,
    SplitStep,
    UnpackStep,
    UnwrapStep,
    ZipStep,
)
from stages.mapping.batch import BatchOrigin
from stages.mapping.budget import Budget
from stages.mapping.cpu_limit import CpuLimit, TooSlow
from stages.mapping.limits import Limits
from stages.mapping.notices import Notices
from stages.mapping.records.series import Origin
from stages.mapping.reject import Reject, shown
from stages.mapping.steps import keys, several, texts, values
from stages.mapping.steps.changes import OnlyChanged
from stages.mapping.steps.conditions import Holds, condition
from stages.mapping.steps.context import Context
from stages.mapping.steps.documents import decoded, decoded_quickly, encoded, has_negative_zero, repeated_key
from stages.mapping.steps.errors import NothingThere, StepFailed
from stages.mapping.steps.functions import UserFunction
from stages.mapping.steps.paths import Document
from stages.mapping.steps.programs import JqProgram
from stages.mapping.steps.several import ApplyMany
from stages.mapping.steps.values import Apply

#: Name of an object for errors, and its JSON text or what is wrong with it.
Named = tuple[str, bytes | Reject]
#: Longest message that is tried without care, bytes.
_MAX_SINGLE: Final = 100_000
#: Verbs that change each value by itself; on a failure nothing else of the message was changed by then.
_BY_VALUE: Final = (ParseStep, ScaleStep, LookupStep, ReplaceStep)
_MAKERS: Final[dict[type[AnyStep], Callable[..., Apply]]] = {
    SplitStep: texts.split, MatchStep: texts.match, UnwrapStep: keys.unwrap, IncludeStep: keys.include,
    ExcludeStep: keys.exclude, RenameStep: keys.rename, CopyStep: keys.copy, MoveStep: keys.move,
    SetStep: keys.put_constant, PivotStep: keys.pivot, PairsStep: texts.pairs, UnpackStep: texts.unpack,
    ScaleStep: values.scale, DropStep: keys.drop}
_MANY: Final[dict[type[AnyStep], Callable[..., ApplyMany]]] = {
    ExplodeStep: several.explode, ZipStep: several.zip_arrays}


class _Compiled(NamedTuple):
    """One step: it has either function."""

    #: For errors: "step 2 (scale): ".
    name: str
    one: Apply | None
    many: ApplyMany | None
    on_error: str
    on_missing: str
    #: Whether a message that the step may leave half changed has to be kept as it was.
    keeps: bool
    #: When it is done; None: always.
    holds: Holds | None = None
    #: Whether it is a program, which leaves a message out by giving nothing.
    is_program: bool = False


class Steps:
    """The steps of one mapping, for messages of one topic. Not thread-safe."""

    def __init__(self, config: MappingConfig, stream: str, topic: str, notices: Notices,
                 names: Sequence[str] | None = None, budget: Budget | None = None) -> None:
        """`names` are those of the headers that messages come with; None: as the mapping needs them. Raises BadStep."""
        self._stream = stream
        self._topic = topic
        self._limits = Limits.of(config)
        self._notices = notices
        self._names = config.header_names() if names is None else names
        self._steps = compiled_all(config, notices, budget or Budget())
        self._with_state = [step.one for step in self._steps if isinstance(step.one, OnlyChanged)]
        self._ones = [(step.one, step.holds) for step in self._steps if step.one is not None]
        #: Whether each message stays one, unless it is left out.
        self.is_single = len(self._ones) == len(self._steps)
        #: Longest message, before and after the steps, that is tried without care, bytes.
        self._most = min(_MAX_SINGLE, config.max_payload_bytes, self._limits.expanded, 2 * self._limits.values - 1)
        #: Messages, or parts of them, that were left out of the current message.
        self.dropped = 0

    def objects(self, named: Iterator[Named], origin: Origin, cpu: CpuLimit) -> Iterator[Named]:
        """What the steps make of the objects of one message. Raises Reject for the message as a whole."""
        self.dropped = 0
        for step in self._with_state:
            step.begin(origin)
        context = Context(self._stream, self._topic, self._limits, self._names, cpu, origin)
        for name, payload in named:
            if isinstance(payload, Reject):
                yield name, payload
                continue
            try:
                document = decoded(payload, self._limits)
            except Reject as reject:
                yield name, reject
                continue
            self._note_repeated(repeated_key(payload, document), context)
            for part, found in self._run(document, 0, context, name):
                yield part, found if isinstance(found, Reject) else _encoded(found)

    def documents(self, document: Document, cpu: CpuLimit) -> Iterator[Document | Reject]:
        """What the steps make of one object. Values are those of `Document`."""
        self.dropped = 0
        context = Context(self._stream, self._topic, self._limits, self._names, cpu, Origin())
        for _, found in self._run(document, 0, context, ""):
            yield found

    def _note_repeated(self, key: str, context: Context) -> None:
        if key:
            self._notices.add("duplicate_key", 1, context.origin.place,
                              f"the key {shown(key)} is there twice in one object; the last one counts")

    def singles(self, texts: Sequence[bytes | None], origin: BatchOrigin, cpu: CpuLimit) -> list[bytes | None]:
        """What the steps make of messages that are one object each, without the care that `objects` takes.

        b"" for one that is left out; None for one that `objects` has to look at. Only if `is_single`.
        """
        context = Context(self._stream, self._topic, self._limits, self._names, cpu)
        found: list[bytes | None] = []
        for index, text in enumerate(texts):
            if text is None or text[:1] != b"{" or len(text) > self._most or has_negative_zero(text):
                found.append(None)
                continue
            cpu.begin()
            context.move(origin, index)
            try:
                found.append(self._single(text, context))
            except (Exception, TooSlow):  # `objects` says what it is
                found.append(None)
        return found

    def _single(self, text: bytes, context: Context) -> bytes:
        for step in self._with_state:
            step.begin(context.origin)
        document = decoded_quickly(text)
        key = repeated_key(text, document)
        for one, holds in self._ones:
            if holds is not None and not holds(document, context, None):
                continue
            found = one(document, context)
            if found is None:
                self._note_repeated(key, context)
                return b""
            document = found
        result = encoded(document)
        if len(result) > self._most:
            raise ValueError(len(result))
        self._note_repeated(key, context)
        return result

    def _run(self, document: Document, at: int, context: Context,
             name: str) -> Iterator[tuple[str, Document | Reject]]:
        """The messages that the steps from `at` on make of one. Depth first, so that few are in memory at once."""
        for number in range(at, len(self._steps)):
            step = self._steps[number]
            if step.holds is not None and not step.holds(document, context, None):
                continue
            kept = encoded(document) if step.keeps else b""
            try:
                if step.many is not None:
                    yield from self._several(step, step.many(document, context), number, context, name)
                    return
                assert step.one is not None
                found = step.one(document, context)
            except (NothingThere, StepFailed) as error:
                policy = step.on_missing if isinstance(error, NothingThere) else step.on_error
                if policy == "reject":
                    yield name, rejected(step.name, error)
                    return
                if policy == "skip":
                    document = decoded(kept, self._limits) if kept else document
                    continue
                found = None
            if found is None:
                self.dropped += 1
                return
            document = found
        yield name, document

    def _several(self, step: _Compiled, parts: Iterator[tuple[str, Document | StepFailed]], number: int,
                 context: Context, name: str) -> Iterator[tuple[str, Document | Reject]]:
        """The messages of a step that makes several. Raises NothingThere and StepFailed before the first."""
        is_empty = True
        for label, part in parts:
            is_empty = False
            if not isinstance(part, StepFailed):
                yield from self._run(part, number + 1, context, name + label)
            elif step.on_error == "reject":
                yield name + label, rejected(step.name, part)
            else:
                self.dropped += 1
        if is_empty and step.is_program:
            self.dropped += 1


def _encoded(document: Document) -> bytes | Reject:
    try:
        return encoded(document)
    except Reject as reject:
        return reject


def compiled_all(config: MappingConfig, notices: Notices, budget: Budget) -> list[_Compiled]:
    """The program of `jq`, the steps, and the function of `transform`. Raises BadStep."""
    limits = Limits.of(config)
    steps = [compiled(step, number, config, notices, budget) for number, step in enumerate(config.steps, 1)]
    if config.jq:
        program = JqProgram(config.jq, limits, "jq")
        steps.insert(0, _Compiled("jq: ", None, program, "reject", "reject", False, is_program=True))
    if config.transform:
        function = UserFunction(config.transform, config.transform_path, config.transform_timeout_ms / 1000, notices)
        steps.append(_Compiled("transform: ", None, function, "reject", "reject", False, is_program=True))
    return steps


def compiled(step: AnyStep, number: int, config: MappingConfig, notices: Notices, budget: Budget) -> _Compiled:
    """One step. Raises BadStep."""
    limits = Limits.of(config)
    verb = str(step.__struct_config__.tag)
    kind = type(step)
    one: Apply | None = None
    many: ApplyMany | None = None
    if isinstance(step, ParseStep):
        one = values.parse(step, limits)
    elif isinstance(step, ReplaceStep):
        one = texts.replace(step, limits)
    elif isinstance(step, LookupStep):
        one = values.lookup(step, limits)
    elif isinstance(step, OnlyChangedStep):
        one = OnlyChanged(step, budget)
    elif isinstance(step, JqStep):
        many = JqProgram(step.program, limits)
    elif isinstance(step, FunctionStep):
        many = UserFunction(step.function, config.transform_path, config.transform_timeout_ms / 1000, notices,
                            "function")
    elif kind in _MANY:
        many = _MANY[kind](step)
    else:
        one = _MAKERS[kind](step)
    on_missing = getattr(step, "on_missing", "skip")
    keeps = not isinstance(step, _BY_VALUE) and "skip" in (step.on_error, on_missing if many else "")
    holds = condition(step.when) if step.when and not isinstance(step, DropStep | ExcludeStep) else None
    return _Compiled(f"step {number} ({verb}): ", one, many, step.on_error, on_missing, keeps, holds,
                     isinstance(step, JqStep | FunctionStep))


def rejected(name: str, error: NothingThere | StepFailed) -> Reject:
    """The reject of a message on which a step fails."""
    return Reject("step_failed", name + (f"{error}: missing" if isinstance(error, NothingThere) else str(error)))
