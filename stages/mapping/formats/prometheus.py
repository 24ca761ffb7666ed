"""`format = "prometheus"`: the answer of Prometheus' query API, an object for each sample.

Source: Prometheus' documentation, "HTTP API", "Expression query result formats". Each object has `name` (of the metric,
or "prometheus"), `labels`, `time` (seconds since 1970) and `value`; a native histogram has `count` and `sum` instead.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from stages.mapping.formats import Transcoder
from stages.mapping.formats.decoded import json_struct, object_text
from stages.mapping.limits import Limits, TooComplex
from stages.mapping.reject import Reject, shown

_REASON: Final = "not_prometheus"
#: Name of samples of expressions that have none.
_NO_NAME: Final = "prometheus"


class _Data(Struct, frozen=True, rename="camel"):
    result_type: str
    result: Raw


class _Answer(Struct, frozen=True, rename="camel"):
    status: str = ""
    error: str = ""
    data: _Data | None = None
    #: Of an answer's data alone.
    result_type: str = ""
    result: Raw = Raw(b"null")


class _Histogram(Struct, frozen=True):
    count: str
    sum: str


class _Series(Struct, frozen=True):
    metric: dict[str, str] = {}
    value: tuple[Decimal, str] | None = None
    values: list[tuple[Decimal, str]] = []
    histogram: tuple[Decimal, _Histogram] | None = None
    histograms: list[tuple[Decimal, _Histogram]] = []


_answer: Final = msgspec.json.Decoder(_Answer)
_list: Final = msgspec.json.Decoder(list[Raw])
_series: Final = msgspec.json.Decoder(_Series)
_scalar: Final = msgspec.json.Decoder(tuple[Decimal, str])


def prometheus_transcoder(limits: Limits) -> Transcoder:
    """The transcoder: yields an object for each sample, and a Reject for each series that is wrong."""
    def objects(payload: bytes) -> Iterator[tuple[str, bytes | Reject]]:
        kind, result = _result(payload, limits)
        if kind in ("scalar", "string"):
            time, value = json_struct(result, _scalar, _REASON, limits)
            sample = _value(value) if kind == "scalar" else value
            yield "", object_text({"name": _NO_NAME, "time": time, "value": sample}, limits)
            return
        if kind not in ("vector", "matrix"):
            raise Reject(_REASON, f"resultType {shown(kind)!r} is not known")
        for number, raw in enumerate(json_struct(result, _list, _REASON, limits), 1):
            where = f"series {number}: "
            try:
                samples = list(_samples(json_struct(raw, _series, _REASON, limits)))
            except TooComplex:
                raise
            except Reject as reject:
                yield where, reject
                continue
            for sample in samples:
                yield where, object_text(sample, limits)

    return objects


def _result(payload: bytes, limits: Limits) -> tuple[str, Raw]:
    """Type and text of the result. Raises Reject."""
    answer = json_struct(payload, _answer, _REASON, limits)
    if answer.status == "error":
        raise Reject(_REASON, f"it is an error of Prometheus: {shown(answer.error)}")
    if answer.data is not None:
        return answer.data.result_type, answer.data.result
    return answer.result_type, answer.result


def _samples(series: _Series) -> Iterator[dict[str, Any]]:
    labels = {name: value for name, value in series.metric.items() if name != "__name__"}
    head = {"name": series.metric.get("__name__") or _NO_NAME, "labels": labels}
    for time, text in [*([series.value] if series.value is not None else []), *series.values]:
        yield {**head, "time": time, "value": _value(text)}
    for time, histogram in [*([series.histogram] if series.histogram is not None else []), *series.histograms]:
        yield {**head, "time": time, "count": _value(histogram.count), "sum": _value(histogram.sum)}


def _value(text: str) -> float | Decimal:
    """A sample's value, which is a text: "1", "NaN", "+Inf". Raises Reject."""
    try:
        value = Decimal(text)
    except ArithmeticError:
        raise Reject(_REASON, f"{shown(text)!r} is no value of a sample") from None
    return value if value.is_finite() else float(value)
