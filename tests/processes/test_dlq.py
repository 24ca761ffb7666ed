"""`pipeline dlq`: letters are listed, shown, replayed once they can be written, and purged."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from apache_iggy import Partitioning, SendMessage

from tests.support.iggy_calls import connected
from tests.support.iggy_servers import RunningIggy
from tests.support.sinks import TOPIC, SandboxInflux, Sink, message, numbers, send

MESSAGES = 300
BAD = (3, 100, 250)


def dlq(command: str, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `pipeline dlq command` to its end."""
    return subprocess.run([sys.executable, "-m", "pipeline", "dlq", command, "-c", str(config), *arguments],
                          capture_output=True, text=True, timeout=60)


def listed(config: Path, *arguments: str) -> list[dict[str, object]]:
    """What `dlq list --json` gives."""
    run = dlq("list", config, "--json", *arguments)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(params=["iggy", "file"])
def config(request: pytest.FixtureRequest, iggy: RunningIggy, stream: str, influxdb: SandboxInflux,
           start_sink: Callable[..., Sink], tmp_path: Path) -> Path:
    """The configuration of a pipeline that has run, and has dead letters: messages whose time is a word."""
    iggy.create_topic(stream, TOPIC, 1)
    send(iggy.address, stream, [message(n, ts="soon") if n in BAD else message(n) for n in range(MESSAGES)])
    places = 'to = ["iggy"]' if request.param == "iggy" else f'to = ["file"]\nfile = "{tmp_path}/letters.ndjson"'
    sink = start_sink(iggy.address, stream, influxdb, dead_letters=places)
    sink.settles(MESSAGES)
    assert sink.stop() == 0
    return sink.config


def test_letters_are_listed_by_filter_and_shown(config: Path, stream: str) -> None:
    letters = listed(config)
    assert [letter["offset"] for letter in letters] == list(BAD)
    assert {letter["reason"] for letter in letters} == {"bad_timestamp"}
    assert listed(config, "--reason", "not_json") == []
    assert listed(config, "--until", "2020-01-01T00:00:00Z") == []
    assert len(listed(config, "--topic", f"{stream}/{TOPIC}", "--since", "2020-01-01T00:00:00Z")) == 3
    shown = dlq("show", config, "--id", str(letters[1]["id"]))
    assert json.loads(json.loads(shown.stdout)["payload"])["value"] == 100
    table = dlq("list", config)
    assert "3 letters, 3 shown" in table.stdout
    assert "bad_timestamp" in table.stdout


def test_a_replay_through_a_mended_mapping_stores_and_marks_what_succeeds(
        config: Path, influxdb: SandboxInflux) -> None:
    before = influxdb.count()
    again = dlq("replay", config)
    assert again.returncode == 1
    assert "0 stored and marked, 3 still dead" in again.stdout
    assert "3 still can't be written: bad_timestamp" in again.stderr
    assert "3 letters would be replayed" in dlq("replay", config, "--dry-run").stdout
    config.write_text(config.read_text().replace('timestamp_from = "field"', 'timestamp_from = "iggy_timestamp"')
                      .replace('timestamp_field = "ts"\n', ""))
    replayed = dlq("replay", config)
    assert replayed.returncode == 0, replayed.stderr
    assert "3 stored and marked, 0 still dead" in replayed.stdout
    assert influxdb.count() == before + 3
    assert listed(config) == []
    assert "0 stored and marked" in dlq("replay", config).stdout


def test_letters_are_purged_by_filter_or_all(config: Path, influxdb: SandboxInflux) -> None:
    first = str(listed(config)[0]["id"])
    assert dlq("purge", config, "--id", first, "--yes").returncode == 0
    assert [letter["offset"] for letter in listed(config)] == list(BAD[1:])
    assert "2 letters would be purged" in dlq("purge", config, "--dry-run").stdout
    assert len(listed(config)) == 2
    assert dlq("purge", config, "--yes").returncode == 0
    assert listed(config) == []
    assert numbers(influxdb.points()) == [n for n in range(MESSAGES) if n not in BAD]


def test_a_mistake_is_one_line(config: Path) -> None:
    run = dlq("show", config, "--id", "nothing")
    assert run.returncode == 1
    assert "there is no such letter" in run.stderr
    assert dlq("list", config, "--since", "yesterday").returncode == 2
    text = config.read_text()
    config.write_text(text.replace("to = [", "to = [] #"))
    assert "no dead letters are kept" in dlq("list", config).stderr or 'file"' in dlq("list", config).stderr


def test_a_letter_has_its_messages_headers(iggy: RunningIggy, stream: str, influxdb: SandboxInflux,
                                           start_sink: Callable[..., Sink]) -> None:
    iggy.create_topic(stream, TOPIC, 1)

    async def sent() -> None:
        client = await connected(iggy)
        await client.send_messages(stream, TOPIC, Partitioning.partition_id(0),
                                   [SendMessage("no json", {"site": "north", "line": 3})])

    asyncio.run(sent())
    sink = start_sink(iggy.address, stream, influxdb)
    sink.settles(1)
    (letter,) = listed(sink.config)
    assert letter["headers"] == {"site": "north", "line": "3"}
