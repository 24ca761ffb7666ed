"""What the sandbox InfluxDBs answer queries from: points chosen by measurement and time, and what there is. Pure.

The sandbox understands the statements that our own source sends, and no others; it says so to whoever asks more.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from pipeline.testbed.sandbox.influxdb import lines
from pipeline.testbed.sandbox.influxdb.answers import gzipped, gzipped_pieces
from pipeline.testbed.sandbox.influxdb.http1 import Request, Response
from pipeline.testbed.sandbox.influxdb.lines import FieldType, FieldValue
from pipeline.testbed.sandbox.influxdb.store import Bucket

ONLY = "the sandbox understands only the queries that a source sends: see pipeline/sandbox/query_*.py"


#: A stored field without a backslash: its key, and its value.
_PLAIN_FIELD = re.compile(r'([^=]+)=("[^"]*"|[^,]*),?')


class NotUnderstood(Exception):
    """A query that a real server may understand, and this one does not. The text names the part."""


class Selection(Struct, frozen=True):
    """Which points are wanted: `start <= time < end`, the `limit` earliest of them, 0: all."""

    measurement: str
    start: int
    end: int
    limit: int = 0
    #: Conditions on tags.
    conditions: tuple[Callable[[Mapping[str, str]], bool], ...] = ()

    def fits(self, tags: Iterable[tuple[str, str]]) -> bool:
        """Whether a point with these tags is wanted."""
        return not self.conditions or all(holds(dict(tags)) for holds in self.conditions)


class Found(Struct, frozen=True):
    """A point that was chosen."""

    time: int
    tags: dict[str, str]
    fields: dict[str, FieldValue]
    types: dict[str, FieldType]


def select(bucket: Bucket, wanted: Selection) -> Iterator[Found]:
    """The points, in the order of time; those of equal time in no order one may rely on."""
    found = sorted(((time, fields, tags) for tags, time, fields in
                    bucket.texts(wanted.measurement, wanted.start, wanted.end) if wanted.fits(tags)),
                   key=lambda one: one[0])
    for time, fields, tags in found[:wanted.limit] if wanted.limit else found:
        yield Found(time, dict(tags), *typed(fields))


def typed(fields: bytes) -> tuple[dict[str, FieldValue], dict[str, FieldType]]:
    """Values and types of a stored point's fields."""
    text = fields.decode("utf-8", "surrogateescape")
    return lines.typed_fields(_PLAIN_FIELD.findall(text) if "\\" not in text else lines.split_fields(text))


def answered(request: Request, body: bytes | Iterator[bytes], headers: tuple[tuple[str, str], ...]) -> Response:
    """An answer of status 200, compressed if the client takes that."""
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers = (*headers, ("Content-Encoding", "gzip"))
        body = gzipped(body) if isinstance(body, bytes) else gzipped_pieces(body)
    return Response(200, body, headers) if isinstance(body, bytes) else Response(200, headers=headers, pieces=body)


class Reader:
    """Takes a statement apart, from its beginning on."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()

    def take(self, pattern: str) -> str | None:
        """What fits the pattern at the beginning, with the space around it removed; None when nothing does."""
        found = re.match(rf"\s*(?:{pattern})\s*", self.text, re.DOTALL)
        if found is None:
            return None
        self.text = self.text[found.end():]
        return found.group().strip()

    def need(self, pattern: str) -> str:
        """The same; raises NotUnderstood when nothing fits."""
        found = self.take(pattern)
        if found is None:
            raise NotUnderstood(f"{self.text[:60]!r} where {pattern} is understood; {ONLY}")
        return found

    def done(self) -> bool:
        """Whether nothing is left."""
        return not self.text.strip()

    def name(self) -> str:
        """An identifier in double quotes; a quote in it is doubled or has a backslash."""
        quoted = self.need(r'"(?:[^"\\]|\\.|"")*"')[1:-1]
        return re.sub(r'\\(.)|""', lambda match: {"n": "\n", None: '"'}.get(match.group(1), match.group(1) or '"'),
                      quoted)

    def listed(self) -> Iterator[str]:
        """Names, separated by commas."""
        yield self.name()
        while self.take(","):
            yield self.name()
