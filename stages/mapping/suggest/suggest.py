"""The suggestion for some messages as a configuration with comments. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from pipeline.config.presets import preset
from pipeline.config.schema import MappingConfig
from stages.mapping.cpu_limit import CpuLimit
from stages.mapping.notices import Notices
from stages.mapping.records.series import Origin
from stages.mapping.reject import Reject
from stages.mapping.steps.runner import Steps
from stages.mapping.suggest import toml
from stages.mapping.suggest.inputs import Detected, known_preset, objects_in
from stages.mapping.suggest.profile import MAX_PATHS, Table
from stages.mapping.suggest.proposal import MOST_REASONS, Proposal, propose, propose_headers
from stages.mapping.suggest.roles import plural
from stages.mapping.suggest.shapes import MOST_STEPS, find_shape
from stages.mapping.suggest.trial import Trial, mended

#: Order of the options: the documentation's. The rest comes after them.
_ORDER: Final = (
    "format", "compression", "csv_header", "csv_delimiter", "csv_trim", "csv_comment",
    "csv_skip_lines", "csv_decimal", "csv_none", "line_protocol_precision", "explode",
    "measurement_from", "measurement_name", "measurement_field", "measurement_template", "tag_fields", "tag_renames",
    "tag_map_field", "constant_tags", "header_tags", "field_renames", "exclude_fields", "nested", "flatten_separator",
    "arrays", "on_name_clash", "on_bad_value", "on_no_fields", "timestamp_from", "timestamp_field", "timestamp_format",
    "timestamp_rest_field", "timestamp_rest_unit", "timestamp_not_before", "on_missing_timestamp")
#: Options that are written as tables of their own.
_TABLES: Final = ("types",)
#: Messages that are looked at; of more, some of all parts.
MOST_MESSAGES: Final = 50_000
#: Share of the messages on which proposed steps may fail.
_MOST_FAILED: Final = 0.1


class Suggestion(NamedTuple):
    """A mapping for some messages."""

    detected: Detected
    proposal: Proposal
    trial: Trial
    #: Objects that were looked at, and what is wrong with the others: reason -> how many.
    objects: int
    bad: dict[str, int]
    #: Values whose paths were not looked at, since there are too many.
    more_paths: int


class About(NamedTuple):
    """What the comments say of the messages."""

    #: Where they are from: "messages.ndjson", "telemetry/sensors".
    origin: str
    stream: str
    topic: str
    #: The command that tries the suggestion.
    preview: str


def suggest(detected: Detected, stream: str, topic: str) -> Suggestion:
    """A mapping for messages. It looks at all of them, and then tries what it proposes on them."""
    if name := known_preset(detected):
        proposal = Proposal(preset(name)["mapping"] | detected.options)
        proposal.preset = name
        trial = mended(proposal, detected, stream, topic)
        if 2 * sum(trial.rejected.values()) <= trial.messages:
            return Suggestion(detected, proposal, trial, len(detected.payloads), {}, 0)
    stride = -(-len(detected.payloads) // MOST_MESSAGES)
    if stride > 1:
        detected = detected._replace(payloads=detected.payloads[::stride], headers=(
            None if detected.headers is None else detected.headers[::stride]), sampled_from=len(detected.payloads))
    objects = list(objects_in(detected))
    with_steps = _suggested(detected, objects, stream, topic, MOST_STEPS)
    failed = with_steps.trial.rejected["step_failed"]
    if not with_steps.proposal.options.get("steps") or not with_steps.trial.problems and failed <= _MOST_FAILED * max(
            len(detected.payloads), 1):
        return with_steps
    return _suggested(detected, objects, stream, topic, 0)


def _suggested(detected: Detected, objects: list[bytes | Reject], stream: str, topic: str,
               most_steps: int) -> Suggestion:
    table, bad = _profile(objects)
    proposal = Proposal(detected.options)
    if detected.format != "line_protocol":
        table = _reshaped(table, objects, proposal, stream, topic, most_steps)
        propose(table, proposal)
        if detected.headers is not None:
            propose_headers(proposal, detected.headers)
    trial = mended(proposal, detected, stream, topic)
    return Suggestion(detected, proposal, trial, table.records, bad, table.more)


def _reshaped(table: Table, objects: list[bytes | Reject], proposal: Proposal, stream: str, topic: str,
              most_steps: int) -> Table:
    """The profile of what steps make of the messages; adds the steps to the proposal."""
    done: frozenset[str] = frozenset()
    steps: list[dict[str, Any]] = []
    while len(steps) < most_steps and (found := find_shape(table, done)) is not None:
        name, shape = found
        done |= {name}
        run = Steps(msgspec.convert({"steps": shape.steps}, MappingConfig), stream, topic, Notices())
        after = [item for text in objects for item in _stepped(run, text)]
        better, _ = _profile(after)
        if not better.records:
            continue
        objects, table = after, better
        steps += shape.steps
        proposal.reasons.setdefault("steps", []).extend([shape.why, *[""] * (len(shape.steps) - 1)])
        proposal.options |= {name: list(value) if isinstance(value, list) else value
                             for name, value in shape.options.items()}
    if steps:
        proposal.options["steps"] = steps
    return table


def _stepped(run: Steps, item: bytes | Reject) -> list[bytes | Reject]:
    """What steps make of one object."""
    if isinstance(item, Reject):
        return [item]
    try:
        return [text for _, text in run.objects(iter([("", item)]), Origin(), CpuLimit(60))]
    except Reject as reject:
        return [reject]


def _profile(objects: Iterable[bytes | Reject]) -> tuple[Table, dict[str, int]]:
    """The profile of objects, and what is wrong with others: reason -> how many."""
    table = Table()
    bad: dict[str, int] = {}
    for item in objects:
        try:
            if isinstance(item, Reject):
                raise item
            table.add(item)
        except (Reject, RecursionError) as error:
            reason = error.reason if isinstance(error, Reject) else "too_deep"
            bad[reason] = bad.get(reason, 0) + 1
    return table, bad


def as_toml(suggestion: Suggestion, about: About) -> str:
    """The configuration, with the reasons as comments."""
    out = toml.comment(_head(suggestion, about))
    out += f"\n[[topics]]\nstream = {toml.text(about.stream)}\ntopic = {toml.text(about.topic)}\n\n"
    notes = suggestion.proposal.notes
    if notes:
        out += toml.comment(["Left as they are:", *[f"- {note}" for note in notes[:2 * MOST_REASONS]]])
        if len(notes) > 2 * MOST_REASONS:
            out += toml.comment([f"- and {len(notes) - 2 * MOST_REASONS} more"])
    out += _mapping(suggestion.proposal)
    out += ('\n[influxdb]                            # yours\nurl = "http://127.0.0.1:8086"\norg = "my-org"\n'
            'bucket = "telemetry"\ntoken = "${INFLUX_TOKEN:-}"\n')
    return out + _test(suggestion.trial)


def _head(suggestion: Suggestion, about: About) -> list[str]:
    trial, detected = suggestion.trial, suggestion.detected
    lines = [f"Suggested by `pipeline mapping suggest` from {plural(trial.messages, 'message')}"
             f"{f' (some of {detected.sampled_from:,})' if detected.sampled_from else ''} of {about.origin}: "
             f"{detected.words}.", f"See what it does: {about.preview}", "",
             f"They become {plural(trial.lines, 'line')}"
             + (f", {trial.dropped:,} left out" if trial.dropped else "")
             + (f", {sum(trial.rejected.values()):,} rejected:" if trial.rejected else ".")]
    lines += [f"  {count:,} by {reason}: {trial.details[reason]}" for reason, count in trial.rejected.most_common()]
    if trial.rejected["not_json"] and trial.lines:
        lines.append('Words among JSON can be written as texts, or left out: see "parse" in docs/reference/steps.rst.')
    if trial.overwritten:
        lines.append(f"{trial.overwritten:,} points have the series and the time of another one, and overwrite it: "
                     "they need a tag that tells them apart, or another time (`preview` shows them)")
    if suggestion.more_paths:
        lines.append(f"There are more than {MAX_PATHS:,} keys; {suggestion.more_paths:,} values at the others were not "
                     "looked at.")
    lines += [f"The configuration is refused: {problem}" for problem in trial.problems]
    return lines


def _mapping(proposal: Proposal) -> str:
    out = "[mapping]\n"
    given: dict[str, Any] = {}
    if proposal.preset:
        given = preset(proposal.preset)["mapping"]
        out += toml.comment(["its keys, which those here replace: docs/reference/presets.rst"])
        out += f"preset = {toml.text(proposal.preset)}\n"
    options = {name: content for name, content in proposal.options.items()
               if name not in (*_TABLES, "steps") and content != given.get(name)}
    names = sorted(options, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    for name in names:
        reasons = proposal.reasons.get(name, [])
        if reasons:
            more = [f"and {len(reasons) - MOST_REASONS} more"] if len(reasons) > MOST_REASONS else []
            out += toml.comment([*reasons[:MOST_REASONS], *more])
        out += f"{name} = {toml.value(options[name], toml.WIDTH - len(name) - 3)}\n"
    for name in _TABLES:
        if content := proposal.options.get(name):
            out += f"\n[mapping.{name}]\n" + _table(content, proposal.reasons.get(name, []))
    for step, why in zip(proposal.options.get("steps", []), proposal.reasons.get("steps", []), strict=False):
        out += "\n" + toml.comment([why] if why else []) + "[[mapping.steps]]\n"
        out += "".join([f"{toml.key(name)} = {toml.value(item)}\n" for name, item in step.items()])
    return out


def _table(content: dict[str, Any], reasons: Sequence[str]) -> str:
    """Keys of a table, each below its reason; a reason that the one above has, too, is not repeated."""
    out, said = "", ""
    for key, item in content.items():
        reason = next((reason.removeprefix(f"{key}: ") for reason in reasons if reason.startswith(f"{key}: ")), "")
        if reason and reason != said:
            out += toml.comment([reason])
        said = reason
        out += f"{toml.key(key)} = {toml.value(item)}\n"
    return out


def _test(trial: Trial) -> str:
    """A case for `pipeline test`: the first message, and what it becomes."""
    if trial.example is None:
        return ""
    payload, headers, lines = trial.example
    try:
        message = f"message = {toml.text(payload.decode())}"
    except UnicodeDecodeError:
        import base64
        message = f'message_base64 = "{base64.b64encode(payload).decode()}"'
    shown = f"headers = {toml.value(dict(headers))}\n" if headers else ""
    listed = "".join(f"    {toml.text(line)},\n" for line in lines)
    return ('\n[[tests]]                             # pipeline test -c FILE\n'
            f'name = "a message"\n{shown}{message}\nlines = [\n{listed}]\n')
