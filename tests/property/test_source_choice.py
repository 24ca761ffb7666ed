"""Patterns of tags mean the same to the pipeline and, as regular expressions and conditions, to a database."""

import re

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.patterns import matches_any
from pipeline.config.regexes import regex_of
from pipeline.config.source_names import measurement_of, qualified, quoted, substitute_names, template_names
from pipeline.config.source_schema import OutputConfig, SourceConfig
from pipeline.testbed.sandbox.influxdb.conditions import FIELD, read_condition, read_one
from pipeline.testbed.sandbox.influxdb.query import Reader
from stages.languages import filters, flux, v3
from stages.languages.filters import Choice, TagCondition

TEXTS = st.text(st.sampled_from("ab*?.[]()|^$\\/'\"%_-ü\n\r\t \x00{}+"), max_size=6)
VALUES = st.lists(TEXTS.filter(bool), max_size=3, unique=True).map(tuple)


@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=3), TEXTS)
def test_a_regular_expression_matches_what_the_patterns_match_but_never_nothing(
        patterns: list[str], text: str) -> None:
    # Go's $ is Python's \Z.
    expression = regex_of(tuple(patterns)).removesuffix("$") + r"\Z"
    assert (re.search(expression.replace("\\/", "/"), text) is not None) == (bool(text) and matches_any(text, patterns))
    assert not re.search(r"[\x00-\x1f]", expression)


def holds(condition: TagCondition, value: str) -> bool:
    """Whether the value of a tag, "" where it is missing, is one that is read."""
    found = matches_any(value, condition.values) if value else condition.or_missing
    return found != condition.exclude


@given(VALUES, st.booleans(), st.booleans(), TEXTS)
def test_conditions_of_all_languages_choose_the_same_points(
        values: tuple[str, ...], or_missing: bool, exclude: bool, value: str) -> None:
    if not values and not or_missing:
        values = ("a",)
    condition = TagCondition('t"g', values, or_missing, exclude)
    choice, tags = Choice((condition,)), {'t"g': value} if value else {}
    expected = holds(condition, value)
    (influxql,) = filters.influxql_conditions(choice, quoted)
    assert read_one(Reader(influxql), "influxql")(tags) == expected
    asked = filters.flux_filter(choice, flux.literal).removeprefix("  |> filter(fn: (r) => ").removesuffix(")\n")
    assert read_condition(Reader(asked), "flux")(tags) == expected
    for known in ((), ('t"g',)):
        for sql in filters.sql_conditions(choice, known, v3.identifier, v3.literal):
            assert read_condition(Reader(sql), "sql")(tags if known else {}) == (
                expected if known else holds(condition, ""))


def test_fields_are_chosen_by_patterns_in_flux_too() -> None:
    choice = Choice(fields=("f*", "n.1"), exclude_fields=("f/x",))
    first, second = filters.flux_filter(choice, flux.literal).splitlines()
    for line, expected in ((first, "f", ), (second, "n.1")):
        condition = read_condition(Reader(line.removeprefix("  |> filter(fn: (r) => ").removesuffix(")")), "flux")
        assert condition({FIELD: expected})
    assert choice.has_field("f/y") and not choice.has_field("f/x") and not choice.has_field("n_1")


@given(TEXTS, TEXTS, TEXTS)
def test_a_measurement_of_a_policy_is_found_by_the_name_it_is_kept_under(policy: str, name: str, other: str) -> None:
    config = SourceConfig(name="n", retention_policies=("*",), output=OutputConfig(stream="{retention_policy}"))
    assert measurement_of(config, qualified(policy, name)) == (policy, name)
    assert (qualified(policy, name) == qualified(policy, other)) == (name == other)
    names = template_names(config, qualified(policy, name))
    assert substitute_names("{retention_policy}-{measurement}", names) == f"{policy}-{name}"
    plain = SourceConfig(name="n", output=OutputConfig(stream="s"))
    assert measurement_of(plain, qualified(policy, name)) == ("", qualified(policy, name))
