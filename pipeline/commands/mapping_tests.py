"""`pipeline test`: runs the cases in a configuration's `[[tests]]`: a message, and the lines or the reject expected."""

import base64
import binascii
import difflib
import json
import sys
from typing import NamedTuple

import click
import msgspec

from pipeline.about import About, header_texts
from pipeline.commands.config import load_config
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import DATABASE
from pipeline.config.schema import CaseConfig, Config
from pipeline.errors import ConfigError
from pipeline.options import Command, config_option
from pipeline.printable import printable, printable_json
from pipeline.topic_configs import as_topic
from stages.mapping.batch import BatchOrigin
from stages.mapping.standalone import local_encoder


class CaseResult(NamedTuple):
    """The result of one case."""

    name: str
    #: Lines of a diff: "- " is expected and missing, "+ " is not expected. Empty if the case passed.
    differences: list[str]


def run_case(config: Config, case: CaseConfig) -> CaseResult:
    """Maps the case's message with the mapping of its topic."""
    subscription = subscription_of(config, case)
    pattern = config.subscriptions()[subscription]
    if pattern.is_pattern and case.topic:
        config = as_topic(config, subscription, pattern.stream, case.topic)
    encoder = local_encoder(config, subscription)
    names = encoder.rules.config.header_names()
    headers = [header_texts(names, About(case.timestamp_us, case.timestamp_us, case.headers))] if names else None
    encoded = encoder.encode([payload_of(case)], BatchOrigin(
        case.partition, case.offset, timestamps=[case.timestamp_us], arrival=case.timestamp_us, headers=headers))
    found = []
    for lines in encoded.groups:
        to = f"[to bucket {lines.bucket}] " if lines.bucket else ""
        found += [to + line for line in lines.body.decode().removesuffix("\n").split("\n")]
    found += [f"[rejected] {reject.reason}: {reject.detail}" for reject in encoded.rejects]
    if encoded.dropped:
        found.append("[dropped]")
    to = f"[to bucket {case.bucket}] " if case.bucket else ""
    expected = [to + line for text in case.lines for line in text.split("\n")]
    if case.reject:
        # A case may give the reason alone, or the reason and the beginning of the detail.
        given = next((line for line in found if line.startswith(f"[rejected] {case.reject}")), None)
        expected.append(given or f"[rejected] {case.reject}")
    if case.dropped:
        expected.append("[dropped]")
    return CaseResult(case.name, [line for line in difflib.ndiff(expected, found) if line[0] in "-+"])


def payload_of(case: CaseConfig) -> bytes:
    """The payload. Raises ValueError for a message_base64 that is not Base64."""
    if case.message_base64:
        try:
            return base64.b64decode(case.message_base64, validate=True)
        except binascii.Error as error:
            raise ValueError(f"message_base64 is not Base64: {error}") from None
    return case.message.encode() if isinstance(case.message, str) else msgspec.json.encode(case.message)


def subscription_of(config: Config, case: CaseConfig) -> int:
    """Index of the case's topic in `config.subscriptions()`; the first one if it names none. Raises ValueError."""
    sinks = config.all_sinks()
    own = [(index, topic) for index, topic in enumerate(config.subscriptions())
           if case.sink in ("", sinks[topic.sink].name)]
    for index, topic in own:
        if case.topic in ("", topic.topic):
            return index
    for index, topic in own:
        if topic.matches(topic.stream, case.topic):
            return index
    if not config.subscriptions():
        raise ValueError("there is no [[topics]] table, and so no mapping")
    raise ValueError(f'no sink "{case.sink}" with a topic "{case.topic}"')


def case_problems(config: Config) -> list[str]:
    """A line for each mistake in `[[tests]]`."""
    problems = []
    names = [case.name for case in config.tests]
    for index, case in enumerate(config.tests):
        if case.name in names[:index]:
            problems.append(f'tests[{index}].name: "{case.name}" is there twice')
        try:
            subscription_of(config, case)
            payload_of(case)
        except ValueError as error:
            problems.append(f"tests[{index}]: {error}")
        if bool(case.message_base64) == (case.message != ""):
            problems.append(f"tests[{index}]: give message or message_base64")
        if case.bucket and not case.lines:
            problems.append(f"tests[{index}].bucket: only with lines")
        if not (case.lines or case.reject or case.dropped):
            problems.append(f"tests[{index}]: give what is expected: lines, reject or dropped = true")
    return problems


@click.command(cls=Command, short_help="Runs the cases in the configuration's [[tests]]")
@config_option
@click.option("--json", "as_json", is_flag=True, help="A JSON object a case.")
def test(path: ConfigInputs, as_json: bool) -> None:
    """Runs the cases in the configuration's [[tests]]; exit code 1 when one fails."""
    config = load_config(path, unused=(*DATABASE, "iggy", "sources", "dead_letters", "network", "http", "otlp",
                                       "pipeline"))
    problems = case_problems(config) or ([] if config.tests else [
        "tests: missing; add [[tests]] with name, message and lines (or reject)"])
    if problems:
        raise ConfigError(path, problems)
    results = [run_case(config, case) for case in config.tests]
    failed = sum(bool(result.differences) for result in results)
    for result in results:
        if as_json:
            click.echo(printable_json(json.dumps({"name": result.name, "ok": not result.differences,
                                                  "differences": result.differences}, ensure_ascii=False)))
        else:
            _print(result)
    if not as_json:
        click.secho(f"{len(results) - failed} passed" + (f", {failed} failed" if failed else ""), bold=True,
                    fg="red" if failed else "green")
    sys.exit(1 if failed else 0)


def _print(result: CaseResult) -> None:
    if not result.differences:
        click.echo(click.style("ok    ", fg="green") + printable(result.name))
        return
    click.echo(click.style("FAILED ", fg="red", bold=True) + printable(result.name))
    for line in result.differences:
        sign, text = ("expected", line[2:]) if line[0] == "-" else ("     got", line[2:])
        click.secho(f"       {sign}: {printable(text)}", fg="red" if line[0] == "-" else "yellow")
