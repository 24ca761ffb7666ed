"""What of messages is not written, and why: keys that are left out, and what steps and rules did. For previews.

It follows the reference (`records`), one message at a time, and writes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from msgspec.structs import replace

from pipeline.config.schema import Config, MappingConfig
from pipeline.config.steps_schema import AnyStep, ExcludeStep, IncludeStep, UnwrapStep
from stages.mapping.batch import BatchOrigin
from stages.mapping.encoder import Encoder
from stages.mapping.records.mapper import RecordMapper
from stages.mapping.records.record import NOT_NUMBERS, decode_object, is_within, items
from stages.mapping.records.series import Origin
from stages.mapping.reject import Reject, shown
from stages.mapping.steps.runner import Steps

#: Messages that are explained; a preview may have far more.
MOST_MESSAGES: Final = 1_000
#: Keys of one message that are explained.
_MOST_KEYS: Final = 10_000


class LeftOut(NamedTuple):
    """A key of a message that is not written."""

    path: str
    why: str


class Explanation(NamedTuple):
    """What of some messages is not written."""

    #: For each message, the keys that are left out; none for a message that is not written at all.
    keys: list[list[LeftOut]]
    #: Rule -> indices of the messages that it applied to.
    rules: list[list[int]]
    #: Step -> indices of the messages that it left out.
    steps: list[list[int]]


def explain(config: Config, subscription: int, payloads: Sequence[bytes], origin: BatchOrigin,
            is_written: Sequence[bool]) -> Explanation:
    """Explains the first messages of a batch; `is_written` says of which there are lines."""
    encoder = _encoder(config, subscription)
    mapper, mapping = encoder.rules, encoder.rules.config
    empty = Explanation([[] for _ in payloads], [[] for _ in mapping.rules], [[] for _ in mapping.steps])
    if mapping.format == "line_protocol":
        return empty
    some = payloads[:MOST_MESSAGES]
    applied = _watched_rules(mapper)
    for index, payload in enumerate(some):
        of_message = origin.of(index)
        found: dict[LeftOut, None] = {}
        for text in encoder.objects_of(payload, origin.alone(index)):
            if is_written[index]:
                with suppress(Reject):  # an element that is rejected beside others
                    found.update(dict.fromkeys(left_out(mapper, text)))
            for rule in _applied(mapper, text, of_message, applied):
                if empty.rules[rule][-1:] != [index]:
                    empty.rules[rule].append(index)
        empty.keys[index].extend(found)
    if mapping.steps:
        _explain_steps(config, subscription, some, origin, empty)
    return empty


def _watched_rules(mapper: RecordMapper) -> list[int]:
    """The rules that apply to a record, in a list that is filled while it is mapped."""
    applied: list[int] = []

    def watched(condition: Callable[..., bool], number: int) -> Callable[..., bool]:
        def holds(*facts: object) -> bool:
            result = condition(*facts)
            if result:
                applied.append(number)
            return result

        return holds

    if mapper.router is not None:
        mapper.router.rules = [(watched(condition, number), drops, route)
                               for number, (condition, drops, route) in enumerate(mapper.router.rules)]
    return applied


def _applied(mapper: RecordMapper, text: bytes, origin: Origin, applied: list[int]) -> set[int]:
    """The rules that apply to an object."""
    if mapper.router is None:
        return set()
    applied.clear()
    try:
        mapper.points(text, origin)
    except Exception:  # what is wrong with a message is said by the preview itself
        mapper.notices.drop()
    return set(applied)


def left_out(mapper: RecordMapper, text: bytes) -> Iterator[LeftOut]:
    """The keys of an object that are not written although the message is."""
    flattener, config = mapper.flattener, mapper.config
    excluded = frozenset(config.exclude_fields)
    todo = [(key, member, False) for key, member in reversed(decode_object(text, flattener.limits).items())]
    seen = 0
    while todo and seen < _MOST_KEYS:
        path, member, is_element = todo.pop()
        seen += 1
        if excluded and is_within(path, excluded):
            yield LeftOut(path, "exclude_fields")
        elif path == config.explode and member[0] == "[":
            for element in reversed(items(member)):
                if element[0] == "{":
                    todo += [(flattener.element_path(key), inner, True) for key, inner in reversed(
                        decode_object(element.encode(), flattener.limits).items())]
        elif member[0] in "{[":
            treatment = flattener.treatment(path, member[0])
            if treatment == "drop":
                yield LeftOut(path, 'nested = "drop"' if member[0] == "{" else 'arrays = "drop"')
            elif treatment == "open":
                todo += [(f"{path}.{key}", inner, is_element) for key, inner in reversed(
                    decode_object(member.encode(), flattener.limits).items())]
            elif treatment == "index":
                todo += [(f"{path}.{number}", inner, is_element) for number, inner in reversed(
                    list(enumerate(items(member))))]
            elif not _is_used(mapper, path) and not mapper.is_field(path):
                yield LeftOut(path, "not in field_names")
        elif why := _why_single(mapper, path, member):
            yield LeftOut(path, why)


def _is_used(mapper: RecordMapper, path: str) -> bool:
    """Whether the value at a path is the measurement, a tag or the time."""
    config = mapper.config
    return mapper.heads.contains(path) or path in config.all_time_paths() or path in config.bucket_paths()


def _why_single(mapper: RecordMapper, path: str, text: str) -> str:
    """Why a single value is not written; "" if it is."""
    if _is_used(mapper, path):
        return "an empty tag" if text == '""' and mapper.heads.tag_key(path, path) else "null" if text == "null" else ""
    if not mapper.is_field(path):
        return "not in field_names"
    if text == "null":
        return "null"
    try:
        if mapper.converter(path)(text):
            return ""
    except Reject:
        return ""
    return f"bad value ({NOT_NUMBERS.get(text) or shown(text)}): on_bad_value"


def _explain_steps(config: Config, subscription: int, payloads: Sequence[bytes], origin: BatchOrigin,
                   explanation: Explanation) -> None:
    """Adds which messages each step left out, and which keys steps that select left out."""
    encoder, mapping = _encoder(config, subscription, has_steps=False), _mapping_of(config, subscription)
    plain = replace(mapping, steps=(), jq="", transform="", transform_path="")
    names, notices = mapping.header_names(), encoder.rules.notices
    first = Steps(replace(plain, jq=mapping.jq), *encoder.rules.place, notices, names)
    runs = [Steps(replace(plain, steps=(step,), transform_path=mapping.transform_path), *encoder.rules.place, notices,
                  names) for step in mapping.steps]
    for index, payload in enumerate(payloads):
        objects = [found for _, found in first.objects(iter([("", text) for text in encoder.objects_of(
            payload, origin.alone(index))]), origin.of(index), encoder.cpu) if not isinstance(found, Reject)]
        for number, (step, run) in enumerate(zip(mapping.steps, runs, strict=True)):
            after: list[bytes] = []
            dropped = 0
            for text in objects:
                after += [found for _, found in run.objects(iter([("", text)]), origin.of(index), encoder.cpu)
                          if not isinstance(found, Reject)]
                dropped += run.dropped
            if dropped and not after:
                explanation.steps[number].append(index)
            if isinstance(step, ExcludeStep | IncludeStep | UnwrapStep) and after:
                explanation.keys[index].extend(_gone(objects, after, step, number, encoder.rules))
            objects = after


def _gone(before: Sequence[bytes], after: Sequence[bytes], step: AnyStep, number: int,
          mapper: RecordMapper) -> Iterator[LeftOut]:
    """The keys that a step which selects keys has left out."""
    kept = {path for text in after for path in _paths(text, mapper)}
    inside = f"{step.path}." if isinstance(step, UnwrapStep) else "\0"
    for path in dict.fromkeys([path for text in before for path in _paths(text, mapper)]):
        if path not in kept and not path.startswith(inside):
            yield LeftOut(path, f"step {number + 1} ({step.__struct_config__.tag})")


def _paths(text: bytes, mapper: RecordMapper) -> list[str]:
    """The paths of the single values and arrays of an object."""
    found: list[str] = []
    todo = [("", text.decode())]
    while todo and len(found) < _MOST_KEYS:
        path, member = todo.pop()
        if member[0] != "{":
            found.append(path[1:])
            continue
        todo += [(f"{path}.{key}", inner) for key, inner in decode_object(
            member.encode(), mapper.flattener.limits).items()]
    return found[::-1]


def _mapping_of(config: Config, subscription: int) -> MappingConfig:
    return config.all_sinks()[config.subscriptions()[subscription].sink].mapping


def _encoder(config: Config, subscription: int, has_steps: bool = True) -> Encoder:
    """An encoder that knows no types of other messages, with its steps or without."""
    topic, mapping = config.subscriptions()[subscription], _mapping_of(config, subscription)
    return Encoder(mapping if has_steps else replace(
        mapping, steps=(), jq="", transform="", transform_path=""), "ns", topic.stream, topic.topic)
