"""`format = "avro"`: one record for each payload, by the schema in a file, or by one of a folder whose id the payload
names; or object container files with their schema.

With a schema file, times of logical types stay numbers (`timestamp-millis`: `timestamp_format = "epoch_ms"`); those of
a container file become RFC 3339 texts.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from pipeline.config.schema import MappingConfig
from stages.mapping.formats import Quick, Transcoder, each
from stages.mapping.formats.avro_columns import AvroColumns
from stages.mapping.formats.avro_container import blocks, header
from stages.mapping.formats.avro_measure import Measure
from stages.mapping.formats.column_texts import Columns
from stages.mapping.formats.confluent import HEADER_BYTES, SchemaFolder, hint, schema_id, schema_text, without_header
from stages.mapping.formats.errors import BadFormat, missing_package
from stages.mapping.formats.json_values import json_or_reject, to_json, usual_texts
from stages.mapping.limits import Limits, TooComplex
from stages.mapping.reject import Reject, shown

#: Most schemas of container files that are cached, and the longest schema in bytes.
_MAX_SCHEMAS: Final = 16
_MAX_SCHEMA_BYTES: Final = 1_000_000


class _Schema(NamedTuple):
    """A schema parsed by fastavro, and the measure of its records."""

    parsed: Any
    measure: Measure
    #: The types that have names.
    named: dict[str, Any]


def avro_transcoder(config: MappingConfig, limits: Limits) -> Transcoder:
    """The transcoder of records with the schema in a file or folder, or of container files. Raises BadFormat."""
    try:
        import fastavro
    except ImportError:
        raise missing_package("format", "avro", "fastavro", "avro") from None

    given = _given(config.avro_schema, limits) if config.avro_schema else None
    has_header = config.schema_header == "confluent"
    folder = _folder(config, limits) if config.schema_folder else None
    containers = _Containers(limits, config.max_payload_bytes)

    def record(payload: bytes) -> bytes:
        schema = given
        if has_header:
            number, payload = without_header(payload, "not_avro")
            schema = folder.schema(number) if folder is not None else given
        assert schema is not None
        schema.measure.check(payload)
        file = io.BytesIO(payload)
        # A record of another schema is read as one of `avro_schema`, if that is given, too.
        reader = given.parsed if given is not None and schema is not given else None
        value = fastavro.schemaless_reader(file, schema.parsed, reader)
        if file.read(1):
            raise Reject("not_avro", "the payload is longer than one record of the schema")
        return to_json(value, limits)

    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        try:
            if given is None and folder is None:
                for number, value in enumerate(containers.records(payload), 1):
                    yield f"record {number}: ", json_or_reject(value, limits)
                return
            text = record(payload)
        except (TooComplex, RecursionError):
            raise
        except Exception as error:  # a payload can be anything, and so can what the reader raises
            reject = error if isinstance(error, Reject) else Reject(
                "not_avro", f"{type(error).__name__}: {shown(_without_object(str(error)))}")
            raise Reject(reject.reason, reject.detail + ("" if has_header else hint(payload))) from None
        yield "", text

    return objects


def _without_object(text: str) -> str:
    """The reader's words without the object that it read from: "cannot read float from <_io.BytesIO object at ...>"."""
    return text.partition(" from <")[0]


def quick_avro(schema_file: str, limits: Limits) -> Quick:
    """The same for many records of the schema in the file; None for those that cannot be read (`formats.Quick`)."""
    import fastavro

    given = _given(schema_file, limits)
    read, schema, measure = fastavro.schemaless_reader, given.parsed, given.measure

    def record(payload: bytes) -> Any:
        if len(payload) > measure.harmless_bytes:
            measure.check(payload)
        file = io.BytesIO(payload)
        found = read(file, schema, None)
        if file.tell() != len(payload) or not isinstance(found, dict):
            raise ValueError
        return found

    columns = AvroColumns.of(schema, given.named)
    # What the reader raises can be anything.
    return Quick(lambda payloads: usual_texts(each(record, payloads, (Exception,)), limits),
                 columns=None if columns is None else columns.columns)


def quick_confluent_avro(config: MappingConfig, limits: Limits) -> Quick | None:
    """The same for records after Confluent's header, by column: of a batch, those of the schema that most of them have.
    None where a record of one schema is read as one of another.
    """
    if config.avro_schema and config.schema_folder:
        return None
    given = _given(config.avro_schema, limits) if config.avro_schema else None
    folder = None if given is not None else _folder(config, limits)
    readers: dict[int, AvroColumns | None] = {}

    def reader(number: int) -> AvroColumns | None:
        number = number if given is None else 0  # all ids name the same schema
        if number not in readers:
            try:
                schema: _Schema = given if folder is None else folder.schema(number)  # type: ignore[assignment]
            except Reject:
                return None  # its file may be added later
            if len(readers) >= _MAX_SCHEMAS:
                readers.clear()
            readers[number] = AvroColumns.of(schema.parsed, schema.named)
        return readers[number]

    def columns(payloads: Sequence[bytes]) -> tuple[Columns, list[int] | None]:
        headers = [payload[:HEADER_BYTES] for payload in payloads]
        ((header, count),) = Counter(headers).most_common(1)
        number = schema_id(header)
        found = reader(number) if number is not None else None
        if found is None:
            return Columns((), [], 0), []
        if count == len(payloads):
            return found.columns([payload[HEADER_BYTES:] for payload in payloads])
        rows = [row for row, one in enumerate(headers) if one == header]
        read, fitting = found.columns([payloads[row][HEADER_BYTES:] for row in rows])
        return read, rows if fitting is None else [rows[at] for at in fitting]

    return Quick(lambda payloads: [None] * len(payloads), columns=columns)


def _folder(config: MappingConfig, limits: Limits) -> SchemaFolder:
    """The schemas of `schema_folder`. Raises BadFormat."""
    return SchemaFolder(config.schema_folder, ".avsc",
                        lambda content: _parsed(_without_times(schema_text(content)), limits), "not_avro")


def _given(schema_file: str, limits: Limits) -> _Schema:
    """The schema in a file. Raises BadFormat."""
    try:
        with open(schema_file, encoding="utf-8") as file:
            return _parsed(_without_times(json.load(file)), limits)
    except OSError as error:
        raise BadFormat("avro_schema", f'"{schema_file}" can\'t be read: {error.strerror}') from None
    except Exception as error:  # fastavro has no common error of its own
        raise BadFormat("avro_schema", f'"{schema_file}" is not an Avro schema: {error}') from None


def _parsed(schema: Any, limits: Limits) -> _Schema:
    import fastavro

    named: dict[str, Any] = {}
    parsed = fastavro.parse_schema(schema, named)
    return _Schema(parsed, Measure(parsed, named, limits), named)


class _Containers:
    """Object container files."""

    def __init__(self, limits: Limits, max_bytes: int) -> None:
        self._limits = limits
        self._max_bytes = max_bytes
        self._known: dict[bytes, _Schema] = {}

    def records(self, payload: bytes) -> Iterator[Any]:
        """The records of a container file."""
        import fastavro

        metadata, at = header(payload)
        schema = self._schema(metadata["avro.schema"])
        codec = metadata.get("avro.codec", b"null").decode()
        for count, data in blocks(payload, at, codec, self._max_bytes):
            schema.measure.check(data, count)
            file = io.BytesIO(data)
            for _ in range(count):
                yield fastavro.schemaless_reader(file, schema.parsed, None)
            if file.read(1):
                raise ValueError("a block has more than its records")

    def _schema(self, text: bytes) -> _Schema:
        if len(text) > _MAX_SCHEMA_BYTES:
            raise Reject("not_avro", f"its schema has {len(text)} bytes, more than {_MAX_SCHEMA_BYTES}")
        found = self._known.get(text)
        if found is None:
            if len(self._known) >= _MAX_SCHEMAS:
                self._known.clear()
            found = self._known[text] = _parsed(json.loads(text), self._limits)
        return found


def _without_times(schema: Any) -> Any:
    """The schema with the underlying integers in place of dates and times."""
    if isinstance(schema, list):
        return [_without_times(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    is_time = str(schema.get("logicalType", "")).startswith(("timestamp", "local-timestamp", "time", "date"))
    return {key: _without_times(part) for key, part in schema.items() if not (key == "logicalType" and is_time)}
