"""Tries a proposed mapping on the messages it is made from, and mends what it can. Pure."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from pipeline.config.mapping_checks import mapping_contradictions
from pipeline.config.schema import Config, InfluxConfig, MappingConfig, TopicConfig
from stages.mapping.batch import BatchOrigin
from stages.mapping.check import mapping_problems
from stages.mapping.standalone import local_encoder
from stages.mapping.suggest.inputs import Detected
from stages.mapping.suggest.proposal import Proposal, check_no_tag_is_lonely, config_of

#: Messages of one batch.
_BATCH: Final = 1_000
#: How often a proposal is mended.
_ROUNDS: Final = 8
_OPTION: Final = re.compile(r"mapping\.([a-z_]+)")
_OF_ELEMENT: Final = re.compile(r"^element [0-9]+ of .*?: ")
_SEPARATORS: Final = (".", "__", "/", "->")
#: Share of the messages whose time cannot be read from which on another time is better.
_MOST_BAD_TIMES: Final = 0.2


class Example(NamedTuple):
    """A message, its headers that the mapping needs, and the lines that it becomes."""

    payload: bytes
    headers: Mapping[str, str]
    lines: tuple[str, ...]


class Trial(NamedTuple):
    """What the messages become under a proposed mapping."""

    messages: int
    lines: int
    #: Messages that are left out.
    dropped: int
    #: Rejected messages by reason, and the first detail of each.
    rejected: Counter[str]
    details: dict[str, str]
    #: Points that overwrite others.
    overwritten: int
    #: The first message that becomes lines alone; None where there is none.
    example: "Example | None"
    #: Why the configuration would be refused; empty if it is not.
    problems: list[str]


def mended(proposal: Proposal, detected: Detected, stream: str, topic: str) -> Trial:
    """The trial of a proposal, which is changed so that fewer messages are rejected."""
    trial = run(proposal, detected, stream, topic)
    for _ in range(_ROUNDS):
        if trial.problems:
            # No proposal should get here; if one does, it is better without that option than refused.
            named = _OPTION.match(trial.problems[0])
            name = named[1] if named is not None else ""
            found = [option for option in proposal.options
                     if option == name or "timestamp" in name and "timestamp" in option]
            if not found:
                return trial
            for option in found:
                proposal.remove(option)
            trial = run(proposal, detected, stream, topic)
            continue
        mend = next((mend for reason, mend in _MENDS.items() if trial.rejected[reason] and mend(proposal, trial)), None)
        if mend is None:
            return trial
        trial = run(proposal, detected, stream, topic)
    return trial


def run(proposal: Proposal, detected: Detected, stream: str, topic: str) -> Trial:
    """Sends the messages through the mapping, as a preview would."""
    payloads = detected.payloads
    trial = Trial(len(payloads), 0, 0, Counter(), {}, 0, None, [])
    try:
        mapping = config_of(proposal)
    except msgspec.ValidationError as error:
        return trial._replace(problems=[str(error)])
    problems = mapping_contradictions(mapping, "mapping") or mapping_problems(mapping, "mapping", [(stream, topic)])
    if problems:
        return trial._replace(problems=problems)
    config = Config(topics=(TopicConfig(stream=stream, topic=topic),), mapping=mapping,
                    influxdb=InfluxConfig(url="http://127.0.0.1:8086", bucket="b", org="o"))
    encoder = local_encoder(config, 0)
    lines = dropped = overwritten = 0
    for begin in range(0, len(payloads), _BATCH):
        batch = payloads[begin:begin + _BATCH]
        encoded = encoder.encode(batch, _origin(begin, len(batch), mapping, detected.headers))
        lines += sum(group.points for group in encoded.groups)
        dropped += encoded.dropped
        overwritten += encoded.overwritten.points
        for reject in encoded.rejects:
            trial.rejected[reject.reason] += 1
            trial.details.setdefault(reject.reason, reject.detail)
    return trial._replace(lines=lines, dropped=dropped, overwritten=overwritten, example=_example(config, detected))


def _origin(first: int, count: int, mapping: MappingConfig, headers: Sequence[Mapping[str, str]] | None) -> BatchOrigin:
    at = 1_700_000_000_000_000
    values = None
    if mapping.header_names():
        some = headers[first:first + count] if headers is not None else [{}] * count
        values = [tuple([held.get(name, "") for name in mapping.header_names()]) for held in some]
    return BatchOrigin(0, first, timestamps=[at] * count, arrival=at, headers=values)


def _example(config: Config, detected: Detected) -> Example | None:
    """The first short message that becomes lines, and these."""
    encoder = local_encoder(config, 0)
    for index, payload in enumerate(detected.payloads[:20]):
        if len(payload) > 2_000:
            continue
        sent = detected.headers[index] if detected.headers is not None else {}
        headers = {name: sent[name] for name in config.mapping.header_names() if name in sent}
        encoded = encoder.encode([payload], _origin(0, 1, config.mapping, [headers]))
        if encoded.groups and not encoded.rejects:
            lines = [line for group in encoded.groups for line in group.body.decode().removesuffix("\n").split("\n")]
            if len(lines) <= 10 and sum(group.points for group in encoded.groups) == len(lines):
                return Example(payload, headers, tuple(lines))
    return None


def _mend_clash(proposal: Proposal, trial: Trial) -> bool:
    separator = proposal.options.get("flatten_separator", "_")
    left = _SEPARATORS[_SEPARATORS.index(separator) + 1:] if separator in _SEPARATORS else _SEPARATORS
    detail = trial.details["name_clash"]
    if "on_name_clash" in proposal.options:
        return False
    if left and "have one path" not in detail and " is a tag and a field" not in detail:
        proposal.set("flatten_separator", left[0], f'with "_" two keys of a message would have one name: {detail}')
    else:
        proposal.remove("flatten_separator")
        proposal.set("on_name_clash", "keep_last", f"of two values with one name the last one counts: {detail}")
    return True


def _mend_no_fields(proposal: Proposal, trial: Trial) -> bool:
    if trial.lines == 0 and proposal.options.get("tag_fields"):
        check_no_tag_is_lonely(proposal)
        return True
    if "on_no_fields" in proposal.options:
        return False
    proposal.set("on_no_fields", "drop", f"{trial.rejected['no_fields']:,} of {trial.messages:,} messages have nothing "
                 "that could be a field: they are left out instead of becoming dead letters")
    return True


def _mend_bad_field(proposal: Proposal, trial: Trial) -> bool:
    detail = trial.details["bad_field"]
    if "explode needs an array" in detail and "explode" in proposal.options:
        proposal.remove("explode")
        return True
    if "on_bad_value" in proposal.options:
        return False
    proposal.set("on_bad_value", "drop_field", f"some values cannot be written ({detail}): they are left out, and the "
                 "rest of the message is written")
    return True


def _mend_bad_time(proposal: Proposal, trial: Trial) -> bool:
    if "timestamp_from" not in proposal.options or trial.rejected["bad_timestamp"] <= _MOST_BAD_TIMES * trial.messages:
        return False
    for option in [option for option in proposal.options if "timestamp" in option]:
        proposal.remove(option)
    proposal.notes.append(f"the time is Iggy's: that of the messages cannot be read: {trial.details['bad_timestamp']}")
    return True


def _mend_missing_time(proposal: Proposal, trial: Trial) -> bool:
    if "on_missing_timestamp" in proposal.options:
        return False
    proposal.set("on_missing_timestamp", "iggy_timestamp", f"{trial.rejected['missing_timestamp']:,} messages have no "
                 "time: they get the one when Iggy received them")
    return True


def _mend_bad_tag(proposal: Proposal, trial: Trial) -> bool:
    """Takes back a tag that some message cannot have: the detail begins with its key."""
    key = trial.details["bad_tag"].partition(":")[0]
    tags = proposal.options.get("tag_fields", [])
    renames = proposal.options.get("tag_renames", {})
    separator = proposal.options.get("flatten_separator", "_")
    path = next((path for path in tags if renames.get(path, path.replace(".", separator)) == key), None)
    if path is not None:
        tags.remove(path)
        renames.pop(path, None)
    elif proposal.options.get("tag_map_field"):
        proposal.remove("tag_map_field")
    else:
        return False
    return True


def _mend_conflict(proposal: Proposal, trial: Trial) -> bool:
    """Makes texts of a field that has values of two types, which its paths alone do not show."""
    detail = _OF_ELEMENT.sub("", trial.details["type_conflict"])
    key = detail.partition("=")[0].replace("\\", "")
    separator = proposal.options.get("flatten_separator", "_")
    types = proposal.options.get("types", {})
    paths = [path for flat, paths in proposal.paths.items() for path in paths
             if key in (flat, path.replace(".", separator)) and types.get(path) != "string"]
    for path in paths:
        proposal.put("types", path, "string", f"{path}: {key} has values of two types; a field has one")
    return bool(paths)


#: Reason -> what to do about it; whether anything was done.
_MENDS: Final[Mapping[str, Callable[[Proposal, Trial], bool]]] = {
    "bad_tag": _mend_bad_tag, "name_clash": _mend_clash, "bad_field": _mend_bad_field, "no_fields": _mend_no_fields,
    "missing_timestamp": _mend_missing_time, "bad_timestamp": _mend_bad_time, "type_conflict": _mend_conflict,
}
