"""Replays dead letters: maps their messages again, writes them, and reports which were stored."""

import logging
import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from pipeline.about import About, header_texts
from pipeline.backoff import Backoff
from pipeline.compression import compress
from pipeline.config.schema import Config, MappingConfig, SinkConfig
from pipeline.dead_letters.letters import DeadLetter
from pipeline.errors import PipelineError
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.influxdb.retention import UNITS
from stages.mapping.batch import BatchOrigin, Encoded, Lines
from stages.mapping.encoder import Encoder
from stages.write.job import WriteJob
from stages.write.transport import Transport

#: Letters in one batch.
LETTERS_AT_ONCE = 500
#: Why a letter cannot be replayed whose store has no payload, and whose message Iggy no longer has.
NOT_KEPT = ("its payload was too large for a dead letter and was not kept, and Iggy no longer has the message; purge "
            "the letter once you know what it was")
#: Attempts of one request before the replay stops; the letters stored until then stay marked.
MAX_ATTEMPTS = 8


class ReplayOutcome(Struct, frozen=True):
    """What became of some letters."""

    stored: list[DeadLetter]
    #: Each with the reason why it still cannot be written.
    failed: list[tuple[DeadLetter, str]]
    #: Points that overwrote others of the same batch.
    overwritten: int = 0


class _Batch(Struct, frozen=True):
    """Letters of one partition, to be written together."""

    #: Index into `Config.all_sinks()`.
    sink: int
    stream: str
    topic: str
    partition: int
    letters: list[DeadLetter]


class Replay:
    """Writes letters with the mapping and database of the current configuration."""

    def __init__(self, config: Config, logger: logging.Logger) -> None:
        self._config = config
        self._logger = logger
        self._sinks = config.all_sinks()
        self._encoders: dict[tuple[int, str, str], Encoder] = {}
        self._transports: dict[int, list[Transport]] = {}

    def run(self, letters: Sequence[DeadLetter]) -> Iterator[ReplayOutcome]:
        """Replays the letters in batches. Raises PipelineError when the database cannot be written to."""
        by_partition: dict[tuple[int, str, str, int], list[DeadLetter]] = {}
        failed: list[tuple[DeadLetter, str]] = []
        for letter in letters:
            sink, why = self._sink(letter)
            if not why and letter.payload_bytes() is None:
                why = NOT_KEPT if letter.payload_omitted else "Iggy no longer had its payload"
            if why:
                failed.append((letter, why))
            else:
                by_partition.setdefault((sink, letter.stream, letter.topic, letter.partition), []).append(letter)
        if failed:
            yield ReplayOutcome([], failed)
        for identity, some in by_partition.items():
            for at in range(0, len(some), LETTERS_AT_ONCE):
                yield self._replay(_Batch(*identity, some[at:at + LETTERS_AT_ONCE]))

    def _sink(self, letter: DeadLetter) -> tuple[int, str]:
        """The index of the sink that a letter is from and "", or -1 and why there is none."""
        sinks = {one.sink for one in self._config.subscriptions()
                 if one.matches(letter.stream, letter.topic)}
        named = [sink for sink in sinks if self._sinks[sink].name == letter.sink]
        if named or len(sinks) == 1:
            return named[0] if named else sinks.pop(), ""
        where = f"{letter.stream}/{letter.topic}"
        if not sinks:
            return -1, f"no sink of this configuration reads {where}"
        return -1, f"several sinks read {where}, and none of them is \"{letter.sink}\", which the letter is of"

    def _replay(self, batch: _Batch) -> ReplayOutcome:
        encoded = self._encode(batch)
        failures = {reject.at: f"{reject.reason}: {reject.detail}" for reject in encoded.rejects}
        for lines in encoded.groups:
            failures.update(self._write(batch.sink, lines))
        return ReplayOutcome([letter for index, letter in enumerate(batch.letters) if index not in failures],
                             [(batch.letters[index], why) for index, why in sorted(failures.items())],
                             encoded.overwritten.points)

    def _encode(self, batch: _Batch) -> Encoded:
        """The lines of a batch. Its messages have the offsets, times and headers that they had in Iggy."""
        sink, letters = self._sinks[batch.sink], batch.letters
        encoder = self._encoders.setdefault((batch.sink, batch.stream, batch.topic), Encoder(
            sink.mapping, sink.influxdb.precision, batch.stream, batch.topic))
        headers = [header_texts(sink.mapping.header_names(), About(
            letter.iggy_timestamp, letter.origin_timestamp, letter.headers)) for letter in letters]
        origin = BatchOrigin(batch.partition, letters[0].offset, [letter.offset for letter in letters],
                             [_time_of(letter, sink.mapping) for letter in letters], time.time_ns() // 1_000,
                             headers if sink.mapping.header_names() else None)
        return encoder.encode([letter.payload_bytes() or b"" for letter in letters], origin)

    def _write(self, sink: int, lines: Lines) -> dict[int, str]:
        """Writes the lines of one bucket to every server set of a sink. Returns message index -> why it was refused."""
        config = self._sinks[sink]
        body = compress(lines.body) if config.influxdb.gzip else lines.body
        failures: dict[int, str] = {}
        for transport in self._transports_of(sink, config):
            for line, why in self._post(transport, lines, body).items():
                failures.update((index, why) for index in lines.messages_of(line))
        return failures

    def _transports_of(self, sink: int, config: SinkConfig) -> list[Transport]:
        if sink not in self._transports:
            self._transports[sink] = [Transport(config.influxdb, urls, self._logger)
                                      for urls in config.influxdb.url_sets()]
        return self._transports[sink]

    def _post(self, transport: Transport, lines: Lines, body: bytes) -> dict[int, str]:
        """Writes a body, with retries. Returns line index -> why the database refused it. Raises PipelineError."""
        config = transport.config
        backoff = Backoff.of(config)
        job, acknowledged, attempts = WriteJob(body, lines.points, config.gzip, unit=UNITS[config.precision]), 0, 0
        while chunk := job.take():
            answer = transport.post(chunk.body or b"", lines.bucket, lines.escapes)
            job.may_repeat = transport.may_repeat
            job.answered(chunk, answer, acknowledged)
            if not isinstance(answer, Retry | OperatorNeeded):
                acknowledged, attempts = acknowledged + 1, 0
                continue
            attempts += 1
            if isinstance(answer, OperatorNeeded) or attempts >= MAX_ATTEMPTS:
                raise PipelineError(f"the replay stopped: {answer.message}. The letters stored before are marked as "
                                    "replayed; correct the cause and run the command again")
            time.sleep(max(backoff.next(), min(answer.after or 0.0, config.retry_after_max_ms / 1000)))
        return {line.line: f"{line.reason}: {line.message}" for line in job.refused}


def _time_of(letter: DeadLetter, mapping: MappingConfig) -> int:
    """The time that the mapping takes from Iggy, microseconds since 1970; as `stages.ingest.message_times` gives it."""
    if mapping.timestamp_from != "origin_timestamp":
        return letter.iggy_timestamp
    return letter.origin_timestamp or (
        letter.iggy_timestamp if mapping.on_missing_timestamp == "iggy_timestamp" else 0)
