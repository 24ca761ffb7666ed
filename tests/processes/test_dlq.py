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
#: A time that is none, and that a terminal, or what draws tables on it, must not take for more than a text.
SOON = "[/b][red]soon\x1b[31m\r\n\u202e:smile:"


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
    send(iggy.address, stream, [message(n, ts=SOON) if n in BAD else message(n) for n in range(MESSAGES)])
    dead_letter_stores = 'stores = ["iggy"]'
    if request.param != "iggy":
        dead_letter_stores = f'stores = ["file"]\nfile = "{tmp_path}/letters.ndjson"'
    sink = start_sink(iggy.address, stream, influxdb, dead_letters=dead_letter_stores)
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
    short = next(line for line in table.stdout.splitlines() if f"{TOPIC}/0/100" in line).split("│")[1].strip()
    for known in (short, short[:6], f"{stream}/{TOPIC}/0/100", str(letters[1]["id"])[:-8]):
        assert dlq("show", config, "--id", known).stdout == shown.stdout


def test_what_a_payload_holds_is_printed_as_text(config: Path) -> None:
    for command in ("list", "show", "replay"):
        run = dlq(command, config)
        assert "[/b][red]soon" in run.stdout + run.stderr and ":smile:" in run.stdout + run.stderr
        assert all(line.isprintable() for line in (run.stdout + run.stderr).splitlines())


def test_a_filter_that_fits_nothing_or_too_much_is_said(config: Path, stream: str) -> None:
    unknown = dlq("list", config, "--reason", "bad_timestmap")
    assert unknown.returncode == 1
    assert "bad_timestamp (3)" in unknown.stderr and "not_json" in unknown.stderr
    none = dlq("list", config, "--reason", "not_json")
    assert none.returncode == 0 and "bad_timestamp (3)" in none.stderr
    unknown = dlq("purge", config, "--topic", "elsewhere", "--yes")
    assert unknown.returncode == 1 and f"{stream}/{TOPIC}" in unknown.stderr
    ambiguous = dlq("purge", config, "--id", f"{stream}/{TOPIC}/0", "--yes")
    assert ambiguous.returncode == 1 and f"{TOPIC}/0/250@" in ambiguous.stderr
    assert len(listed(config)) == 3


GARBAGE = (b"\xff\xfe\x00", b"{", b"[1,2]", b'"text"', b"[" * 100_000, b"not json \x1b[31m \xe2\x80\xae",
           b'{"mark":"replayed","time":"t","ids":["unknown"]}', b'{"mark":17}', b"x" * 3_000_000,
           b'{"time":"no time","stream":"s","topic":"t","partition":0,"offset":0,"stage":"encode","reason":"r",'
           b'"detail":"d","pipeline_version":"1"}',
           b'{"time":"2026-01-31T00:00:00Z","stream":"s","topic":"t","partition":0,"offset":0,"stage":"encode",'
           b'"reason":"r","detail":"d","payload_base64":"?","pipeline_version":"1"}')


def litter(config: Path, iggy: RunningIggy, stream: str) -> int:
    """Puts what is no letter among the letters; says how many records, but for the mark of an unknown letter."""
    path = config.parent.parent / "letters.ndjson"
    if path.exists():
        whole = path.read_bytes()
        path.write_bytes(b"\n".join(GARBAGE) + b"\n" + whole + b"\n".join(GARBAGE) + b'\n{"torn')
        return 2 * (len(GARBAGE) - 1) + 1

    async def sent() -> None:
        client = await connected(iggy)
        for payload in GARBAGE:
            await client.send_messages(stream, "influxdb-dlq", Partitioning.partition_id(0), [SendMessage(payload)])

    asyncio.run(sent())
    return len(GARBAGE) - 1


def test_what_is_no_letter_is_counted_and_left_out_and_purged(config: Path, iggy: RunningIggy, stream: str,
                                                             influxdb: SandboxInflux) -> None:
    count = litter(config, iggy, stream)
    for command, *arguments in (["list"], ["list", "--since", "2020-01-01T00:00:00Z"], ["show"], ["replay"],
                                ["replay", "--dry-run"], ["purge", "--dry-run"]):
        run = dlq(command, config, *arguments)
        assert run.returncode == (1 if run.args[4] == "replay" and not arguments else 0), run.stderr
        assert f"{count:,} records are not dead letters" in run.stderr
        assert "Traceback" not in run.stderr and "\x1b" not in run.stdout + run.stderr
    assert [letter["offset"] for letter in listed(config)] == list(BAD)

    first = str(listed(config)[0]["short_id"])
    assert dlq("purge", config, "--id", first, "--yes").returncode == 0
    assert [letter["offset"] for letter in listed(config)] == list(BAD[1:])
    config.write_text(config.read_text().replace('timestamp_from = "field"', 'timestamp_from = "iggy_timestamp"')
                      .replace('timestamp_field = "ts"\n', ""))
    before = influxdb.count()
    assert dlq("replay", config).returncode == 0
    assert influxdb.count() == before + 2

    purged = dlq("purge", config, "--yes")
    assert purged.returncode == 0 and f"0 letters and {count:,} other records purged" in purged.stdout
    after = dlq("list", config)
    assert "0 letters" in after.stdout and after.stderr == ""
    assert dlq("purge", config, "--yes").returncode == 0


def test_a_replay_through_a_mended_mapping_stores_and_marks_what_succeeds(
        config: Path, influxdb: SandboxInflux) -> None:
    before = influxdb.count()
    again = dlq("replay", config)
    assert again.returncode == 1
    assert "0 stored and marked, 3 still dead" in again.stdout
    assert "bad_timestamp" in again.stderr
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
    config.write_text(text.replace("stores = [", "stores = [] #"))
    assert "dead_letters.stores" in dlq("list", config).stderr


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
