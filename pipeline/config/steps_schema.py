"""The schema of `[[mapping.steps]]`: one Struct for each verb, told apart by the key `do`.

Keys have the same meaning in every verb: `path` is what a step works on, `from` what it reads, `to` where the result
goes, `names` a table of old and new paths. The `#:` comments are the text of the documentation's page of all keys.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from pipeline.config.scalars import NonEmpty

#: A path, or several. A part of a path may have `*` and `?`, and `**` stands for any number of parts.
Paths = NonEmpty | tuple[NonEmpty, ...]
#: A single value.
Scalar = str | bool | int | float
#: Variable of a jq program with the place, times and headers of the message.
JQ_ABOUT: Final = "$about"
#: What becomes of a message on which a step fails, or in which it finds nothing.
Policy = Literal["reject", "skip", "drop"]
ValuePolicy = Literal["reject", "skip", "exclude", "drop"]
ParseFormat = Literal["json", "base64", "base64_json", "hex", "number"]
#: What `from` and conditions can name beside paths, and beside `header('NAME')`.
METADATA: Final = ("stream()", "topic()", "partition()", "offset()", "timestamp()")
_HEADER: Final = re.compile(r"""header\(\s*(?:'([^']+)'|"([^"]+)"|([^'"()]+?))\s*\)""")
#: The same in a condition, between texts.
METADATA_IN_CONDITION: Final = re.compile(
    r"""('(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|`[^`]*+`)"""
    r"""|\b((?:stream|topic|partition|offset|timestamp|value)\(\)|header\(\s*(?:'[^']+'|"[^"]+"|[^'"()]+?)\s*\))""")


class _Step(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="do"):
    """What all verbs have."""

    #: Only if this condition holds; "": always. Its grammar is that of `[[mapping.rules]]`, with `header('NAME')`,
    #: `topic()`, `stream()`, `partition()`, `offset()` and `timestamp()`.
    when: str = ""


class Step(_Step, frozen=True, kw_only=True):
    """What verbs have that work on the message as a whole."""

    #: If the step fails: reject the message, skip the step (the message stays as it was), or drop the message.
    on_error: Policy = "reject"


class ValueStep(_Step, frozen=True, kw_only=True):
    """What verbs have that change single values."""

    #: Paths of the values.
    path: Paths
    #: Where the result goes; "": to the same path.
    to: str = ""
    #: If a value is not one that the step can change: reject the message, skip the value, exclude the value, or drop
    #: the message.
    on_error: ValuePolicy = "reject"
    #: If there is no such value: reject the message, skip the step, or drop the message.
    on_missing: Policy = "skip"


class SplitStep(Step, frozen=True, kw_only=True, tag="split", rename={"from_": "from"}):
    """`[[mapping.steps]] do = "split"`: takes the parts of a text as keys, e.g. of an MQTT topic."""

    #: Path of the text, or `topic()`, `stream()`, `header('NAME')`.
    from_: NonEmpty
    #: Paths that get the parts, in order; "" leaves one out, "..." (once) any number. Otherwise the numbers must agree.
    to: tuple[str, ...]
    #: What stands between the parts.
    separator: NonEmpty = "/"
    #: If there is no such value: as `on_error`.
    on_missing: Policy = "reject"


class MatchStep(Step, frozen=True, kw_only=True, tag="match", rename={"from_": "from"}):
    """`[[mapping.steps]] do = "match"`: takes the named groups of a regular expression as keys."""

    #: Path of the text, or `topic()`, `stream()`, `header('NAME')`.
    from_: NonEmpty
    #: Regular expression (RE2) with named groups: `(?P<site>[^/]+)`. It is searched for; `^` and `$` anchor it.
    pattern: NonEmpty
    #: Path of an object that gets the groups; "": the message.
    to: str = ""
    #: If there is no such value: as `on_error`.
    on_missing: Policy = "reject"


class ParseStep(ValueStep, frozen=True, kw_only=True, tag="parse", rename={"as_": "as"}):
    """`[[mapping.steps]] do = "parse"`: reads what a text holds."""

    #: "json", "base64" and "hex" (of UTF-8 text), "base64_json", or "number": also with a unit behind it. Of several,
    #: the first that fits.
    as_: ParseFormat | tuple[ParseFormat, ...]
    #: Decimal sign, with as = "number". With ",", points and spaces between groups of three digits are left out; with
    #: ".", commas and spaces.
    decimal: Literal[".", ","] = "."
    #: Path that gets the unit, with as = "number"; "": the unit is left out.
    unit_to: str = ""


class PairsStep(Step, frozen=True, kw_only=True, tag="pairs"):
    """`[[mapping.steps]] do = "pairs"`: makes keys of a text of names and values, such as "a=1 b=2"."""

    #: Path of the text.
    path: NonEmpty
    #: What stands between two pairs; " " is any white space. A value in double quotes may hold it.
    separator: NonEmpty = " "
    #: What stands between a name and its value.
    equals: NonEmpty = "="
    #: Whether names and values are encoded as in URLs and forms ("%20", "+").
    url: bool = False
    #: Path of an object that gets the keys; "": the message.
    to: str = ""
    #: If there is no such value: as `on_error`.
    on_missing: Policy = "reject"


class UnpackStep(Step, frozen=True, kw_only=True, tag="unpack", rename={"as_": "as"}):
    """`[[mapping.steps]] do = "unpack"`: takes numbers out of bytes, such as the payload of a LoRaWAN device."""

    #: Path of the text that holds the bytes.
    path: NonEmpty
    #: How it holds them.
    as_: Literal["base64", "hex"]
    #: The bytes as Python's module struct has them: ">hHB" is a signed and an unsigned 16-bit integer and a byte, the
    #: most significant byte first; "<f" a 32-bit float, the least significant one first.
    format: NonEmpty
    #: Paths that get the values, in order; "" leaves one out.
    to: tuple[str, ...]
    #: If there is no such value: as `on_error`.
    on_missing: Policy = "reject"


class ReplaceStep(ValueStep, frozen=True, kw_only=True, tag="replace", rename={"with_": "with"}):
    """`[[mapping.steps]] do = "replace"`: changes texts by a regular expression."""

    #: Regular expression (RE2), which is replaced everywhere in the text.
    pattern: NonEmpty
    #: What stands in its place; groups as in Python: "\\1", "\\g<name>".
    with_: str = ""
    #: Whether all letters become small or capital ones then.
    case: Literal["keep", "lower", "upper"] = "keep"


class UnwrapStep(Step, frozen=True, kw_only=True, tag="unwrap"):
    """`[[mapping.steps]] do = "unwrap"`: the members of an object become the message."""

    #: Path of the object.
    path: NonEmpty
    #: Paths that stay beside them; ["*"]: everything.
    keep: tuple[NonEmpty, ...] = ()
    #: If there is no such value: as `on_error`.
    on_missing: Policy = "reject"


class ExplodeStep(Step, frozen=True, kw_only=True, tag="explode"):
    """`[[mapping.steps]] do = "explode"`: makes a message of each element of an array, or each member of an object,
    with everything beside it."""

    #: Path of the array, through other arrays where there are some: each of them is exploded. If the last part has a
    #: `*`, each member with such a name is an element. Where a member is an object, only objects are elements.
    path: NonEmpty
    #: Path that gets the element's index, or the member's name; "": none.
    key: str = ""
    #: Path of an object that gets the element; "": its members go beside the rest of the message.
    to: str = ""
    #: If there is no such value: as `on_error`.
    on_missing: Policy = "reject"


class ZipStep(Step, frozen=True, kw_only=True, tag="zip"):
    """`[[mapping.steps]] do = "zip"`: makes a message of each row of arrays that lie side by side."""

    #: Path of an array -> path of its elements in the messages. With wildcards as in `rename`: "data.*" = "*".
    names: dict[str, NonEmpty]
    #: If there is no such value: as `on_error`.
    on_missing: Policy = "reject"


class PivotStep(Step, frozen=True, kw_only=True, tag="pivot"):
    """`[[mapping.steps]] do = "pivot"`: makes keys of names and values that stand beside each other."""

    #: Path of an object with a name and a value, or of an array of them; "": the message itself.
    path: str = ""
    #: Path of the name in it; of an array of names if `value` is one of values.
    name: NonEmpty
    #: Path of the value; of several, the first that has a value.
    value: Paths
    #: Path of an object that gets the keys; "": the message.
    to: str = ""
    #: If there is no such value: as `on_error`.
    on_missing: Policy = "reject"


class IncludeStep(Step, frozen=True, kw_only=True, tag="include"):
    """`[[mapping.steps]] do = "include"`: leaves out everything but some paths."""

    #: Paths that stay, with everything inside them.
    path: Paths


class ExcludeStep(Step, frozen=True, kw_only=True, tag="exclude"):
    """`[[mapping.steps]] do = "exclude"`: leaves out some paths, always or on a condition."""

    #: Paths that are left out, with everything inside them.
    path: Paths
    #: Only values for which this holds; `value()` is the value itself. The grammar is that of `[[mapping.rules]]`.
    when: str = ""


class RenameStep(Step, frozen=True, kw_only=True, tag="rename"):
    """`[[mapping.steps]] do = "rename"`: gives paths other names."""

    #: Old path -> new path. What each `*` and `?` of the old one matched stands for the `*` in the new one, in order.
    names: dict[str, NonEmpty]
    #: If one of them is in no message.
    on_missing: Policy = "skip"


class CopyStep(Step, frozen=True, kw_only=True, tag="copy", rename={"from_": "from"}):
    """`[[mapping.steps]] do = "copy"`: copies a value, also one from outside the payload."""

    #: Path, or `topic()`, `stream()`, `partition()`, `offset()`, `timestamp()` (microseconds), `header('NAME')`. Of
    #: several, the first that has a value.
    from_: Paths
    #: Where it goes.
    to: NonEmpty
    #: If there is no such value.
    on_missing: Policy = "skip"


class MoveStep(Step, frozen=True, kw_only=True, tag="move", rename={"from_": "from"}):
    """`[[mapping.steps]] do = "move"`: moves a value; of several, the first, and the others are left out."""

    #: Path. Of several, the first that has a value.
    from_: Paths
    #: Where it goes.
    to: NonEmpty
    #: If there is no such value.
    on_missing: Policy = "skip"


class SetStep(Step, frozen=True, kw_only=True, tag="set"):
    """`[[mapping.steps]] do = "set"`: sets a value, or replaces it: by a constant, or a text made of others."""

    #: Its path.
    to: NonEmpty
    #: The value; either this or `template`.
    value: Scalar | None = None
    #: Text with paths in braces, and `{topic()}` and the like: "{site}-{rack.number}".
    template: str = ""
    #: Only where there is no value.
    if_missing: bool = False
    #: If a value of the template is missing.
    on_missing: Policy = "skip"


class ScaleStep(ValueStep, frozen=True, kw_only=True, tag="scale"):
    """`[[mapping.steps]] do = "scale"`: multiplies numbers, then adds to them; in decimal, so that 1987 by 0.001 is
    1.987."""

    #: What they are multiplied by.
    factor: int | float = 1
    #: What is added then.
    offset: int | float = 0
    #: Digits behind the decimal point to which the result is rounded; -1: it is not.
    digits: Annotated[int, Meta(ge=-1, le=15)] = -1
    #: If there is no such value.
    on_missing: Policy = "skip"


class LookupStep(ValueStep, frozen=True, kw_only=True, tag="lookup"):
    """`[[mapping.steps]] do = "lookup"`: replaces values by those of a table: words by numbers, for example."""

    #: The value as a text -> what it becomes.
    values: dict[str, Scalar]
    #: What all others become; without it, `on_error` applies to them.
    default: Scalar | None = None
    #: Whether capital and small letters are the same.
    ignore_case: bool = False
    #: If there is no such value.
    on_missing: Policy = "skip"


class DropStep(Step, frozen=True, kw_only=True, tag="drop"):
    """`[[mapping.steps]] do = "drop"`: leaves out messages on a condition."""

    #: The condition; its grammar is that of `[[mapping.rules]]`. It may name `topic()`, `stream()`, `partition()`,
    #: `offset()`, `timestamp()` and `header('NAME')`, too.
    when: NonEmpty


class OnlyChangedStep(Step, frozen=True, kw_only=True, tag="only_changed"):
    """`[[mapping.steps]] do = "only_changed"`: leaves out messages that say the same as the last one of their series.

    Batches of a partition go to one encoder then."""

    #: Paths that identify the series, such as "device"; none: all messages of a partition are one.
    by: tuple[NonEmpty, ...] = ()
    #: Paths whose values count; none: everything but `by` and `ignore`.
    path: tuple[NonEmpty, ...] = ()
    #: Paths whose values do not count, such as the time of the message.
    ignore: tuple[NonEmpty, ...] = ()
    #: After this time by Iggy's clock a message is written although nothing has changed.
    longest_silence_ms: Annotated[int, Meta(ge=1, le=31_622_400_000)] = 3_600_000
    #: If a message lacks a path of `by`; "skip" writes it.
    on_missing: Policy = "skip"


class JqStep(Step, frozen=True, kw_only=True, tag="jq"):
    """`[[mapping.steps]] do = "jq"`: changes messages by a program of jq; needs the extra `jq`."""

    #: The program: an object in; one or more objects out, or nothing for a message that is left out. `$about` has
    #: stream, topic, partition, offset, timestamp, origin_timestamp and headers.
    program: NonEmpty


class FunctionStep(Step, frozen=True, kw_only=True, tag="function"):
    """`[[mapping.steps]] do = "function"`: changes messages by a Python function, as `mapping.transform` does."""

    #: "module:function"; the module is looked for as that of `mapping.transform`.
    function: NonEmpty


AnyStep = (SplitStep | MatchStep | ParseStep | UnwrapStep | ExplodeStep | ZipStep | PivotStep | IncludeStep
           | ExcludeStep | RenameStep | CopyStep | MoveStep | SetStep | ScaleStep | LookupStep | DropStep
           | OnlyChangedStep | PairsStep | UnpackStep | ReplaceStep | JqStep | FunctionStep)


def names_of(step: AnyStep) -> tuple[str, ...]:
    """The paths, and `topic()` and the like, that a step reads with `from` or in a condition."""
    found = [name for _, name in METADATA_IN_CONDITION.findall(step.when)]
    if isinstance(step, SplitStep | MatchStep | CopyStep):
        found += listed(step.from_)
    return tuple(found)


def headers_in(steps: Iterable[AnyStep]) -> list[str]:
    """The headers that some steps read."""
    return [name for step in steps for text in names_of(step) if (name := header_of(text))]


def needs_everything(steps: Iterable[AnyStep], program: str, function: str) -> bool:
    """Whether steps, a jq program or a function are told everything about a message."""
    return bool(function) or JQ_ABOUT in program or any(
        isinstance(step, FunctionStep) or isinstance(step, JqStep) and JQ_ABOUT in step.program for step in steps)


def header_of(text: str) -> str:
    """The header that `header('NAME')` names; "" for any other text."""
    match = _HEADER.fullmatch(text)
    return match[match.lastindex or 0] if match is not None else ""


def listed(paths: Paths) -> tuple[str, ...]:
    """One path, or several, as several."""
    return (paths,) if isinstance(paths, str) else paths
