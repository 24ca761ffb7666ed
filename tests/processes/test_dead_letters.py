"""The dead-letter process: what can't be stored waits, what is too large is kept without its payload, and a store that
won't do is said at the start."""

import base64
import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.testbed.harness.waiting import wait_until
from tests.support.iggy_servers import RunningIggy, SandboxIggy, running_sandbox
from tests.support.sinks import TARGETS, TOPIC, SandboxInflux, Sink, configuration, message, read_topic, send


def in_file(path: Path, more: str = "") -> str:
    """`[dead_letters]` of a file."""
    return f'stores = ["file"]\nfile = "{path}"\n{more}'


def letters_of(path: Path) -> list[dict[str, Any]]:
    """The letters in a file, all of whose lines are whole."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def bad(number: int, payload: str = "") -> bytes:
    """A message that becomes a dead letter."""
    return message(number, ts="soon", more=payload)


def test_letters_wait_for_a_full_disk_and_none_is_lost_or_doubled(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink],
        tmp_path: Path) -> None:
    path = tmp_path / "letters.ndjson"
    iggy.create_topic(stream, TOPIC, 1)
    sink = start_sink(iggy.address, stream, influxdb, dead_letters=in_file(path))
    status = sink.wait_for(lambda status: status.ready and "dead-letter" in status.pids)
    limit = 200_000
    _, most = resource.prlimit(status.pids["dead-letter"], resource.RLIMIT_FSIZE)
    resource.prlimit(status.pids["dead-letter"], resource.RLIMIT_FSIZE, (limit, most))

    send(iggy.address, stream, [bad(n, "x" * 1_000) if n % 2 else message(n) for n in range(500)])
    stuck = sink.wait_for(lambda status: status.paused and "letters.ndjson" in status.retrying.get("dead-letter", ""))
    assert "File too large; raise the limit" in stuck.retrying["dead-letter"]
    assert path.stat().st_size <= limit
    assert all(letter["reason"] == "bad_timestamp" for letter in letters_of(path))
    sink.wait_for_log("nothing is lost")

    resource.prlimit(status.pids["dead-letter"], resource.RLIMIT_FSIZE, (most, most))
    assert not sink.settles(500).retrying
    assert [letter["offset"] for letter in letters_of(path)] == list(range(1, 500, 2))
    assert path.stat().st_mode & 0o777 == 0o600
    assert sink.stop() == 0


def test_a_store_that_is_away_does_not_double_the_letters_of_the_other(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink],
        tmp_path: Path) -> None:
    file = tmp_path / "folder" / "letters.ndjson"
    file.parent.mkdir()
    sandbox.create_topic(stream, TOPIC, 1)
    sink = start_sink(sandbox.address, stream, influxdb, dead_letters=f'stores = ["iggy", "file"]\nfile = "{file}"\n')
    sink.wait_for(lambda status: status.ready)
    file.parent.rename(tmp_path / "away")
    send(sandbox.address, stream, [bad(0), message(1)])
    sink.wait_for(lambda status: "folder" in status.retrying.get("dead-letter", ""))
    (tmp_path / "away").rename(file.parent)
    sink.settles(2)
    assert len(letters_of(file)) == len(read_topic(sandbox.address, stream, "influxdb-dlq")) == 1


@pytest.mark.parametrize("to", ["iggy", "file"])
def test_a_message_too_large_for_a_dead_letter_is_replayed_from_its_topic(
        to: str, iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink],
        tmp_path: Path) -> None:
    path = tmp_path / "letters.ndjson"
    iggy.create_topic(stream, TOPIC, 1)
    large = bad(1).ljust(63_999_900 if to == "iggy" else 50_000)
    dead_letter_stores = 'stores = ["iggy"]' if to == "iggy" else in_file(path, "max_file_bytes = 20_000")
    sink = start_sink(iggy.address, stream, influxdb, dead_letters=dead_letter_stores)
    send(iggy.address, stream, [message(0)])
    send(iggy.address, stream, [large])
    send(iggy.address, stream, [message(2), bad(3)])
    status = sink.settles(4)
    assert (status.written, status.rejected) == (2, 2)
    assert sink.stop() == 0
    assert "died" not in sink.log()

    records = letters_of(path) if to == "file" else list(map(json.loads, read_topic(iggy.address, stream,
                                                                                   "influxdb-dlq")))
    letter, other = sorted(records, key=lambda record: int(record["offset"]))
    assert (letter["offset"], other["offset"], len(records)) == (1, 3, 2)
    assert "payload" not in letter and "payload_base64" not in letter and letter["payload_omitted"]
    assert letter["payload_length"] == len(large) and letter["payload_sha256"] == hashlib.sha256(large).hexdigest()

    mended = sink.config.read_text().replace('timestamp_from = "field"', 'timestamp_from = "iggy_timestamp"')
    limits = "max_payload_bytes = 100_000_000\nmax_expanded_bytes = 300_000_000\n"
    assert f"{len(large):,} bytes" in dlq(sink.config, "list")
    sink.config.write_text(mended.replace('timestamp_field = "ts"\n', limits))
    assert "2 stored and marked, 0 still dead" in dlq(sink.config, "replay")
    assert influxdb.count() == 4


def test_text_that_json_inflates_is_kept_whole(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    sink = start_sink(iggy.address, stream, influxdb)
    for payload in (message(0), b"\x01" * 11_000_000, message(2)):
        send(iggy.address, stream, [payload])
    status = sink.settles(3)
    assert (status.written, status.rejected) == (2, 1)
    (letter,) = map(json.loads, read_topic(iggy.address, stream, "influxdb-dlq"))
    assert base64.b64decode(letter["payload_base64"]) == b"\x01" * 11_000_000
    assert sink.stop() == 0
    assert "died" not in sink.log()


def test_a_letter_that_this_iggy_does_not_take_is_kept_without_its_payload(
        stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    with running_sandbox(max_frame_bytes=2 << 20) as iggy:
        iggy.create_topic(stream, TOPIC, 1)
        sink = start_sink(iggy.address, stream, influxdb)
        large = b'"' * 1_900_000
        for payload in (message(0), large, message(2)):
            send(iggy.address, stream, [payload])
        assert sink.settles(3).written == 2
        (letter,) = map(json.loads, read_topic(iggy.address, stream, "influxdb-dlq"))
        assert letter["payload_omitted"] and letter["payload_sha256"] == hashlib.sha256(large).hexdigest()
        sink.wait_for_log("max_message_size")


def dlq(config: Path, command: str) -> str:
    """What `pipeline dlq` prints."""
    run = subprocess.run([sys.executable, "-m", "pipeline", "dlq", command, "-c", str(config)], capture_output=True,
                         text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize(("kind", "words"), [
    ("missing", "make the folder"), ("folder", "is a folder"), ("not a folder", "Not a directory"),
    ("link", "symbolic link"), ("full", "File too large"), ("foreign", "written to by others"),
])
def test_a_file_that_cannot_be_written_is_said_at_the_start(
        kind: str, words: str, iggy: RunningIggy, stream: str, influxdb: SandboxInflux, tmp_path: Path) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    path = tmp_path / "letters.ndjson"
    match kind:
        case "missing":
            path = tmp_path / "nowhere" / "letters.ndjson"
        case "folder":
            path.mkdir()
        case "not a folder":
            path.touch()
            path = path / "letters.ndjson"
        case "link":
            path.symlink_to(tmp_path / "victim")
        case "foreign":
            path.touch()
            path.chmod(0o666)
    config = tmp_path / "pipeline.toml"
    config.write_text(configuration(iggy.address, stream, influxdb.url, TARGETS["v2"], tmp_path / "run",
                                    dead_letters=in_file(path)))

    def limited() -> None:
        if kind == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))

    # -B: CPython 3.11 would leave bytecode files that are cut at the limit, which no process could import.
    run = subprocess.run([sys.executable, "-B", "-m", "pipeline", "start", "-c", str(config)], capture_output=True,
                         text=True, timeout=60, preexec_fn=limited)
    assert run.returncode == (2 if kind == "folder" else 1)  # 2: the configuration alone shows it
    (error,) = [line for line in run.stderr.splitlines() if "error" in line]
    assert "dead_letters.file" in error and str(path) in error and words in error
    assert not (tmp_path / "victim").exists()


def test_a_missing_topic_of_dead_letters_is_made_at_the_start(
        sandbox: SandboxIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink]) -> None:
    sandbox.create_topic(stream, TOPIC, 1)
    sink = start_sink(sandbox.address, stream, influxdb)
    sink.wait_for(lambda status: status.ready)
    assert "influxdb-dlq" in sandbox.broker.state.streams[stream].topics


def test_what_a_pipeline_makes_is_for_its_user_alone(
        iggy: RunningIggy, stream: str, influxdb: SandboxInflux, start_sink: Callable[..., Sink],
        tmp_path: Path) -> None:
    iggy.create_topic(stream, TOPIC, 1)
    before = os.umask(0o022)
    try:
        sink = start_sink(iggy.address, stream, influxdb, dead_letters=in_file(tmp_path / "letters.ndjson"))
    finally:
        os.umask(before)
    send(iggy.address, stream, [bad(0), message(1)])
    sink.settles(2)
    made = [tmp_path / "letters.ndjson", *(sink.folder / "run").iterdir()]
    wait_until(lambda: len(made) > 5, "sockets")
    assert {path.name: oct(path.stat().st_mode & 0o077) for path in made if path.stat().st_mode & 0o077} == {}
