"""`format = "opentelemetry"`: OTLP/JSON of metrics, an object for each data point.

Source: opentelemetry-proto, metrics/v1/metrics.proto, and OTLP's JSON encoding. Each object has `name`, `kind`, `unit`,
`tags` (attributes of the resource and of the point, which go before them), `scope` (name and version), `time` and
`start` (nanoseconds); and its fields: `value` of a gauge or sum; `count`, `sum`, `min`, `max` and cumulative
`bucket_<bound>` of a histogram; `count`, `sum`, `min`, `max`, `zero_count` of an exponential one, whose buckets are
left out; `count`, `sum`, `quantile_<quantile>` of a summary. A point that is marked as having no value has none.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from stages.mapping.formats import Transcoder
from stages.mapping.formats.decoded import json_struct, object_text
from stages.mapping.limits import Limits, TooComplex
from stages.mapping.reject import Reject

_REASON: Final = "not_opentelemetry"
#: Flag of a point that has no recorded value.
_NO_VALUE: Final = 1
#: 64-bit integers are texts in JSON; some senders write numbers.
_Int = int | str


class _Struct(Struct, frozen=True, rename="camel"):
    pass


class _AnyValue(_Struct, frozen=True):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: _Int | None = None
    double_value: Decimal | None = None
    bytes_value: str | None = None
    array_value: Raw = Raw()
    kvlist_value: Raw = Raw()

    def plain(self) -> Any:
        """What a tag is made of; an array or list of attributes is its JSON text."""
        for value in (self.string_value, self.bool_value, self.int_value, self.double_value, self.bytes_value):
            if value is not None:
                return value
        nested = bytes(self.array_value) or bytes(self.kvlist_value)
        return nested.decode() if nested else None


class _Attribute(_Struct, frozen=True):
    key: str
    value: _AnyValue | None = None


class _Quantile(_Struct, frozen=True):
    quantile: Decimal = Decimal(0)
    value: Decimal = Decimal(0)


class _Point(_Struct, frozen=True):
    attributes: list[_Attribute] = []
    time_unix_nano: _Int = 0
    start_time_unix_nano: _Int = 0
    flags: int = 0
    as_double: Decimal | None = None
    as_int: _Int | None = None
    count: _Int | None = None
    sum: Decimal | None = None
    min: Decimal | None = None
    max: Decimal | None = None
    zero_count: _Int | None = None
    bucket_counts: list[_Int] = []
    explicit_bounds: list[Decimal] = []
    quantile_values: list[_Quantile] = []


class _Points(_Struct, frozen=True):
    data_points: list[Raw] = []


class _Metric(_Struct, frozen=True):
    name: str = ""
    unit: str = ""
    gauge: _Points | None = None
    sum: _Points | None = None
    histogram: _Points | None = None
    exponential_histogram: _Points | None = None
    summary: _Points | None = None

    def points(self) -> tuple[str, list[Raw]]:
        """Kind of the metric, and its points."""
        for kind, points in (("gauge", self.gauge), ("sum", self.sum), ("histogram", self.histogram),
                             ("exponential_histogram", self.exponential_histogram), ("summary", self.summary)):
            if points is not None:
                return kind, points.data_points
        return "", []


class _Scope(_Struct, frozen=True):
    name: str = ""
    version: str = ""


class _ScopeMetrics(_Struct, frozen=True):
    scope: _Scope = _Scope()
    metrics: list[_Metric] = []


class _Resource(_Struct, frozen=True):
    attributes: list[_Attribute] = []


class _ResourceMetrics(_Struct, frozen=True):
    resource: _Resource = _Resource()
    scope_metrics: list[_ScopeMetrics] = []


class _Request(_Struct, frozen=True):
    resource_metrics: list[_ResourceMetrics]


_request: Final = msgspec.json.Decoder(_Request)
_point: Final = msgspec.json.Decoder(_Point)


def opentelemetry_transcoder(limits: Limits) -> Transcoder:
    """The transcoder: yields an object for each data point, and a Reject for each that is wrong."""
    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        for resource in json_struct(payload, _request, _REASON, limits).resource_metrics:
            outer = _tags(resource.resource.attributes)
            for scope in resource.scope_metrics:
                about = {name: value for name, value in (("name", scope.scope.name), ("version", scope.scope.version))
                         if value}
                for metric in scope.metrics:
                    kind, points = metric.points()
                    head = {"name": metric.name, "kind": kind, "unit": metric.unit, "scope": about}
                    for number, raw in enumerate(points, 1):
                        where = f"{metric.name}, point {number}: "
                        try:
                            point = json_struct(raw, _point, _REASON, limits)
                            yield where, object_text(head | _members(point, outer), limits)
                        except TooComplex:
                            raise
                        except Reject as reject:
                            yield where, reject

    return objects


def _tags(attributes: Sequence[_Attribute]) -> dict[str, Any]:
    return {one.key: one.value.plain() for one in attributes if one.key and one.value is not None}


def _members(point: _Point, outer: dict[str, Any]) -> dict[str, Any]:
    """What an object has of its point. Raises Reject."""
    members: dict[str, Any] = {"tags": outer | _tags(point.attributes)}
    for name, text in (("time", point.time_unix_nano), ("start", point.start_time_unix_nano)):
        if text not in (0, "0", ""):
            members[name] = text
    if point.flags & _NO_VALUE:
        return members
    value = point.as_double if point.as_double is not None else _integer(point.as_int)
    fields = {"value": value, "count": _integer(point.count), "sum": point.sum, "min": point.min, "max": point.max,
              "zero_count": _integer(point.zero_count), **_buckets(point),
              **{f"quantile_{_plain(one.quantile)}": one.value for one in point.quantile_values}}
    return members | {name: float(value) if isinstance(value, Decimal) and not value.is_finite() else value
                      for name, value in fields.items() if value is not None}


def _buckets(point: _Point) -> dict[str, int]:
    """The counts of a histogram's buckets up to each bound, as Prometheus has them. Raises Reject."""
    if not point.bucket_counts:
        return {}
    bounds = [*map(_plain, point.explicit_bounds), "+Inf"]
    if len(bounds) != len(point.bucket_counts):
        raise Reject(_REASON, f"{len(point.bucket_counts)} bucketCounts for {len(bounds) - 1} explicitBounds")
    total, out = 0, {}
    for bound, count in zip(bounds, point.bucket_counts, strict=True):
        total += _integer(count) or 0
        out[f"bucket_{bound}"] = total
    return out


def _plain(number: Decimal) -> str:
    """A bound or quantile in a field's key: 0.5, 10, 1e-7 as it was written."""
    text = str(number)
    return text.rstrip("0").rstrip(".") if "." in text and "E" not in text else text


def _integer(text: _Int | None) -> int | None:
    """A 64-bit integer. Raises Reject."""
    if text is None:
        return None
    try:
        return int(text) if len(str(text)) < 40 else int("x")
    except ValueError:
        raise Reject(_REASON, f"{str(text)[:40]!r} is not an integer") from None
