"""The example configurations and the examples in the documentation do what they say."""

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline.about import About, header_texts
from pipeline.commands.config import load_config
from pipeline.commands.mapping_tests import case_problems, payload_of, run_case, subscription_of
from pipeline.commands.preview import report_on
from pipeline.commands.preview_samples import Sample
from pipeline.config.schema import CaseConfig, Config, MappingConfig, RuleConfig

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "mapping").glob("*.toml"))
DOCS = ROOT / "docs" / "reference" / "mapping.rst"
PRESETS = ROOT / "docs" / "reference" / "presets.rst"
STEPS = ROOT / "docs" / "reference" / "steps.rst"
COMING_FROM = ROOT / "docs" / "how-to" / "coming-from.rst"
REST = """
[[topics]]
stream = "telemetry"
topic = "sensors"
[influxdb]
org = "o"
bucket = "b"
precision = "ms"
"""


def toml_blocks(page: Path) -> Iterator[str]:
    """The pieces of configuration on a page of the documentation."""
    lines = page.read_text().split("\n")
    for start, line in enumerate(lines):
        if line == ".. code:: toml":
            end = next(at for at in range(start + 2, len(lines) + 1)
                       if at == len(lines) or lines[at] and not lines[at].startswith(" "))
            yield textwrap.dedent("\n".join(lines[start + 2:end]))


def python_blocks(page: Path) -> str:
    """The pieces of Python on a page, as one module."""
    blocks = page.read_text().split(".. code:: python\n\n")[1:]
    return "\n".join(textwrap.dedent(re.split(r"\n(?=\S)", block)[0]) for block in blocks)


def check(config: Config) -> None:
    """Runs the cases, one by one and all of a topic in one preview."""
    assert config.tests
    assert case_problems(config) == []
    assert {result.name: result.differences for result in (run_case(config, case) for case in config.tests)
            if result.differences} == {}
    for subscription in range(len(config.subscriptions())):
        names = config.all_sinks()[config.subscriptions()[subscription].sink].mapping.header_names()
        samples = [Sample(case.name, payload_of(case), timestamp=case.timestamp_us,
                          headers=header_texts(names, About(case.timestamp_us, case.timestamp_us, case.headers)))
                   for case in config.tests
                   if subscription_of(config, case) == subscription]
        report = report_on(config, subscription, samples)
        assert [bool(outcome.reject) for outcome in report.outcomes] == [bool(case.reject) for case in config.tests]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_example_configuration_loads_and_its_cases_hold(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check(load_config(str(path), {}))


@pytest.mark.parametrize("block", [pytest.param(block, id=f"{page.stem} example {number}")
                                   for page in (DOCS, STEPS, PRESETS, COMING_FROM)
                                   for number, block in enumerate(toml_blocks(page), 1)])
def test_an_example_in_the_documentation_holds(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "example.toml"
    (tmp_path / "example.py").write_text(python_blocks(STEPS))
    (tmp_path / "node_red.py").write_text(python_blocks(COMING_FROM))
    monkeypatch.setattr(sys, "path", [*sys.path])
    path.write_text(block + REST)
    check(load_config(str(path), {}))


def test_every_format_has_an_example_and_every_option_is_documented() -> None:
    formats = {load_config(str(path), {}).mapping.format for path in CONFIGS}
    assert formats == {"json", "ndjson", "msgpack", "line_protocol", "text", "csv", "avro", "protobuf",
                       "cbor", "senml", "opentelemetry", "prometheus", "sparkplug"}
    text = DOCS.read_text() + STEPS.read_text()
    options = [field.name for struct in (MappingConfig, RuleConfig) for field in msgspec.structs.fields(struct)]
    assert [option for option in options if f"``{option}" not in text and f"\n    {option} =" not in text
            and f"[[mapping.{option}]]" not in text] == []
    assert {field.name for field in msgspec.structs.fields(CaseConfig)} >= {"message", "lines", "reject", "dropped"}
