"""Patterns of topics: what they match, what they never match, the ids of what they find, and wrong configurations."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.preview import chosen_subscription, with_topic
from pipeline.commands.preview_samples import NothingToPreview
from pipeline.config.feedback import written_topics
from pipeline.config.inputs import ConfigInputs
from pipeline.config.load import read_config
from pipeline.config.schema import Config, SinkConfig, TopicConfig
from pipeline.errors import ConfigError
from pipeline.sockets.sink_rules import NOT_FOUND_YET, WireRules
from pipeline.subscriptions import FIRST_ID, Subscriptions, first_match, id_of
from pipeline.topic_configs import as_topic, unmatched, with_topics
from pipeline.wire import sink as wire
from pipeline.wire.sink import FoundTopic, Partition, Range

NAMES = st.text("ab.-_X*é", min_size=1, max_size=6)


def config_of(*topics: tuple[str, str], exclude: tuple[str, ...] = ()) -> Config:
    """One sink that reads these topics."""
    return Config(topics=tuple(TopicConfig(stream=stream, topic=topic, exclude=exclude if "*" in topic else ())
                               for stream, topic in topics))


@given(NAMES, NAMES, st.integers(0, 3))
def test_ids_are_those_of_names_and_no_index(stream: str, topic: str, pattern: int) -> None:
    found = FoundTopic(pattern, stream, topic)
    assert FIRST_ID <= id_of(found) < 2**62
    assert id_of(found) == id_of(FoundTopic(pattern, stream, topic)) != id_of(FoundTopic(pattern + 1, stream, topic))
    assert id_of(found) != id_of(FoundTopic(pattern, topic + stream, stream))


@given(st.lists(st.tuples(st.just("s"), NAMES), max_size=8, unique=True), st.lists(NAMES, min_size=1, max_size=4,
                                                                                   unique=True))
def test_every_topic_is_read_once(existing: list[tuple[str, str]], names: list[str]) -> None:
    configured = config_of(*[("s", name) for name in names]).subscriptions()
    for stream, topic in existing:
        found = list(first_match(configured, stream, topic))
        explicit = [one for one in configured if not one.is_pattern and one.topic == topic]
        assert len(found) + len(explicit) <= 1
        assert bool(found or explicit) == any(one.matches(stream, topic) for one in configured)


def test_the_first_pattern_of_each_consumer_reads_a_topic() -> None:
    sinks = tuple(SinkConfig(name=f"s{number}", consumer=consumer, topics=(TopicConfig(stream="a?", topic="*"),))
                  for number, consumer in enumerate(("one", "one", "two")))
    found = list(first_match(Config(sinks=sinks).subscriptions(), "ab", "t"))
    assert found == [FoundTopic(0, "ab", "t"), FoundTopic(2, "ab", "t")]
    assert not list(first_match(Config(sinks=sinks).subscriptions(), "abc", "t"))


def test_a_pattern_leaves_out_what_is_excluded_and_brackets_are_no_pattern() -> None:
    [pattern, plain] = config_of(("s", "a*"), ("s", "b[1]"), exclude=("a.test*", "ax")).subscriptions()
    assert [name for name in ("a", "a.b", "a.test", "a.test.2", "ax", "A", "ba") if pattern.matches("s", name)] == \
        ["a", "a.b"]
    assert pattern.is_pattern and not plain.is_pattern and plain.matches("s", "b[1]")


def test_only_topics_that_match_are_learned() -> None:
    topics = Subscriptions(config_of(("s", "plain"), ("s", "a*")))
    assert list(topics) == [0]
    id_ = topics.learn(FoundTopic(1, "s", "ab"))
    assert topics.learn(FoundTopic(1, "s", "ab")) == id_ and list(topics) == [0, id_]
    assert topics[id_].label(3) == "s/ab partition 3" and not topics[id_].is_pattern
    assert (topics.definition(0), topics.definition(id_)) == (None, FoundTopic(1, "s", "ab"))
    for pattern, stream, topic in ((0, "s", "plain"), (1, "t", "ab"), (1, "s", "b"), (2, "s", "a")):
        with pytest.raises(ValueError, match="no pattern"):
            topics.learn(FoundTopic(pattern, stream, topic))


def test_messages_define_the_topics_that_they_name() -> None:
    rules = WireRules(config_of(("s", "a*")), 1)
    found = FoundTopic(0, "s", "ab")
    where = Partition(id_of(found), 0)
    progress = wire.Progress([(where, 1)])
    assert rules.control(progress) == NOT_FOUND_YET
    assert rules.control(wire.Dispatched(Range(1, where, 0, 0, 1, 1))) == NOT_FOUND_YET
    assert rules.control(wire.ProcessDied("write-0", [Range(1, where, 0, 0, 1, 1)])) == "", "a death is never ignored"
    assert rules.control(wire.ProcessDied("write-0", [Range(1, where, 0, 0, 2, 1)])) == "2 messages from offset 0 to 0"
    assert rules.control(wire.Progress([(Partition(0, 0), 1)])) == "there is no topic 0", "a pattern is no topic"
    assert "no pattern" in rules.control(wire.Started(1, [], [FoundTopic(0, "s", "b")]))
    assert rules.control(wire.Started(1, [wire.PartitionStart(where, 0, -1, 0)], [found])) == ""
    assert rules.control(progress) == ""


@pytest.mark.parametrize(("text", "written"), [
    ('[dead_letters]\ntopic = "Bad"', ["bad", " BAD", "influxdb-dlq"]),
    ('[dead_letters]\nstores = ["file"]\nfile = "x"', ["influxdb-dlq"]),
    ('[[sources]]\nname = "x"\nstate_topic = "s/state"\nmeasurements = ["m"]\n[sources.influxdb]\ndatabase = "d"\n'
     '[sources.output]\nstream = "s"\ntopic = "from-{measurement}"\ndead_letter_topic = "left"',
     ["state", "from-x", "left", "influxdb-dlq"])])
def test_a_pattern_never_reads_what_the_configuration_writes(text: str, written: list[str], tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(f'[[topics]]\nstream = "s"\ntopic = "*"\n[influxdb]\ndatabase = "e"\n{text}')
    writes = written_topics(read_config(str(path)))
    assert [name for name in [*written, "sensors", "a"] if writes("s", name)] == written


def test_a_partition_has_a_name_before_its_topic_is_known() -> None:
    topics, found = Subscriptions(config_of(("s", "a*"))), FoundTopic(0, "s", "ab")
    assert topics.label(Partition(id_of(found), 3)) == "a topic found by pattern, partition 3"
    assert topics.label(Partition(topics.learn(found), 3)) == "s/ab partition 3"


def test_topics_in_place_of_patterns() -> None:
    config = config_of(("s", "plain"), ("s", "a*"), ("s", "b*"))
    expanded = with_topics(config, [FoundTopic(1, "s", "a1"), FoundTopic(1, "s", "a2")])
    assert [one.topic for one in expanded.subscriptions()] == ["plain", "a1", "a2"]
    assert [one.topic for one in unmatched(config, expanded)] == ["b*"]
    assert [one.topic for one in as_topic(config, 1, "s", "a9").subscriptions()] == ["plain", "a9", "b*"]


@pytest.mark.parametrize(("topic", "index", "label"), [
    ("", 0, "s/plain"), ("s/a1", 1, "s/a1"), ("a1", 1, "s/a1"), ("b/c", 2, "b/c"), ("s/a*", 1, "s/a*")])
def test_a_preview_is_of_one_topic_that_matches(topic: str, index: int, label: str) -> None:
    config, path = config_of(("s", "plain"), ("s", "a*"), ("b*", "c")), ConfigInputs(("x.toml",))
    assert chosen_subscription(config, path, topic) == index
    assert with_topic(config, index, topic, from_iggy=False).subscriptions()[index].label() == label
    with pytest.raises(NothingToPreview, match="has no topic s/z"):
        chosen_subscription(config, path, "s/z")


SINKS = """
[[sinks]]
name = "{0}"
[[sinks.topics]]
stream = "s"
topic = "{1}"
[sinks.influxdb]
database = "{0}"
"""


@pytest.mark.parametrize(("text", "problem"), [
    ('[[topics]]\nstream = "s"\ntopic = "a*"\npartitions = [1]', "topics[0].partitions: not with a pattern"),
    ('[[topics]]\nstream = "s"\ntopic = "a"\nexclude = ["b"]', "topics[0].exclude: only with a pattern"),
    ('[[topics]]\nstream = "s*"\ntopic = "a"', "dead_letters.stream: required, because topics[0].stream is a pattern"),
    (SINKS.format("one", "a*") + SINKS.format("two", "ab"), "the pattern s/a* matches s/ab, which sink two reads for"),
])
def test_wrong_patterns_are_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(text if "sinks" in text else f'{text}\n[influxdb]\ndatabase = "d"\n')
    with pytest.raises(ConfigError) as caught:
        read_config(str(path))
    assert problem in str(caught.value)
