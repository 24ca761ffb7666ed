"""Replays dead letters: through the mapping again, and into the database; tells which were stored."""

import logging
import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from pipeline.backoff import Backoff
from pipeline.compression import compress
from pipeline.config.schema import Config, MappingConfig, SinkConfig
from pipeline.dead_letters.letters import DeadLetter
from pipeline.errors import PipelineError
from stages.influxdb.answers import OperatorNeeded, Retry
from stages.influxdb.retention import UNITS
from stages.mapping.encoder import BatchOrigin, Encoder, Lines
from stages.write.job import WriteJob
from stages.write.transport import Transport

#: Letters written at once.
LETTERS_AT_ONCE = 500
#: Why a letter is still dead whose payload its store could not take, and that Iggy doesn't have any more.
NOT_KEPT = ("its payload was too large for a dead letter and was not kept, and Iggy no longer has the message; purge "
            "the letter once you know what it was")
#: Tries of one request before the replay gives up; what was stored until then stays marked.
MAX_TRIES = 8


class Replayed(Struct, frozen=True):
    """What became of some letters."""

    stored: list[DeadLetter]
    #: Each with the reason why it still can't be written.
    failed: list[tuple[DeadLetter, str]]
    #: Points that took the place of others of these.
    overwritten: int = 0


class Replay:
    """Writes letters with the configuration as it is now."""

    def __init__(self, config: Config, logger: logging.Logger) -> None:
        self._config = config
        self._logger = logger
        self._sinks = config.all_sinks()
        self._encoders: dict[tuple[int, str, str], Encoder] = {}
        self._transports: dict[int, list[Transport]] = {}

    def run(self, letters: Sequence[DeadLetter]) -> Iterator[Replayed]:
        """Replays the letters, some at a time. Raises PipelineError when the database can't be written to."""
        by_partition: dict[tuple[int, str, str, int], list[DeadLetter]] = {}
        failed: list[tuple[DeadLetter, str]] = []
        for letter in letters:
            sink, why = self._sink(letter)
            if not why and letter.payload_bytes() is None:
                why = NOT_KEPT if letter.payload_omitted else "its payload was gone from Iggy"
            if why:
                failed.append((letter, why))
            else:
                by_partition.setdefault((sink, letter.stream, letter.topic, letter.partition), []).append(letter)
        if failed:
            yield Replayed([], failed)
        for (sink, stream, topic, partition), some in by_partition.items():
            for at in range(0, len(some), LETTERS_AT_ONCE):
                yield self._write(sink, stream, topic, partition, some[at:at + LETTERS_AT_ONCE])

    def _sink(self, letter: DeadLetter) -> tuple[int, str]:
        """The sink that a letter is of, and "" or why there is none."""
        sinks = {one.sink for one in self._config.subscriptions()
                 if (one.stream, one.topic) == (letter.stream, letter.topic)}
        named = [sink for sink in sinks if self._sinks[sink].name == letter.sink]
        if named or len(sinks) == 1:
            return named[0] if named else sinks.pop(), ""
        where = f"{letter.stream}/{letter.topic}"
        if not sinks:
            return -1, f"no sink of this configuration reads {where}"
        return -1, f"several sinks read {where}, and none of them is \"{letter.sink}\", which the letter is of"

    def _write(self, sink: int, stream: str, topic: str, partition: int, letters: list[DeadLetter]) -> Replayed:
        options = self._sinks[sink]
        encoder = self._encoders.setdefault((sink, stream, topic), Encoder(
            options.mapping, options.influxdb.precision, stream, topic))
        headers = [tuple(letter.headers.get(name, "") for name in options.mapping.header_tags) for letter in letters]
        origin = BatchOrigin(partition, letters[0].offset, [letter.offset for letter in letters],
                             [_time_of(letter, options.mapping) for letter in letters], time.time_ns() // 1_000,
                             headers if options.mapping.header_tags else None)
        encoded = encoder.encode([letter.payload_bytes() or b"" for letter in letters], origin)
        why = {reject.at: f"{reject.reason}: {reject.detail}" for reject in encoded.rejects}
        for group in encoded.groups:
            content = compress(group.body) if options.influxdb.gzip else group.body
            for transport in self._transports_of(sink, options):
                for line, words in self._post(transport, group, content).items():
                    why.update((index, words) for index in group.messages_of(line))
        return Replayed([letter for index, letter in enumerate(letters) if index not in why],
                        [(letters[index], words) for index, words in sorted(why.items())], encoded.overwritten.points)

    def _transports_of(self, sink: int, options: SinkConfig) -> list[Transport]:
        if sink not in self._transports:
            self._transports[sink] = [Transport(options.influxdb, urls, self._logger)
                                      for urls in options.influxdb.url_sets()]
        return self._transports[sink]

    def _post(self, transport: Transport, group: Lines, content: bytes) -> dict[int, str]:
        """Writes a body as it is sent; the lines that the database refuses, with its words."""
        config = transport.config
        backoff = Backoff.of(config)
        job, acknowledged, tries = WriteJob(content, group.points, config.gzip, unit=UNITS[config.precision]), 0, 0
        while chunk := job.take():
            answer = transport.post(chunk.body or b"", group.bucket, group.escapes)
            job.may_repeat = transport.may_repeat
            job.answered(chunk, answer, acknowledged)
            if not isinstance(answer, Retry | OperatorNeeded):
                acknowledged, tries = acknowledged + 1, 0
                continue
            tries += 1
            if isinstance(answer, OperatorNeeded) or tries >= MAX_TRIES:
                raise PipelineError(f"the replay stopped: {answer.message}; what was stored before is marked: "
                                    "run it again")
            time.sleep(max(backoff.next(), min(answer.after or 0.0, config.retry_after_max_ms / 1000)))
        return {line.line: f"{line.reason}: {line.message}" for line in job.refused}


def _time_of(letter: DeadLetter, mapping: MappingConfig) -> int:
    """Iggy's time of the message that the mapping asks for, as `stages.ingest.message_times` gives it."""
    if mapping.timestamp_from != "origin_timestamp":
        return letter.iggy_timestamp
    return letter.origin_timestamp or (
        letter.iggy_timestamp if mapping.on_missing_timestamp == "iggy_timestamp" else 0)
