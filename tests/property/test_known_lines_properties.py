"""Lines of line protocol give the same whether they are known or not."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config.schema import MappingConfig, Precision
from pipeline.fields.types import FieldTypeRegistry
from stages.mapping.encoder import BatchOrigin, Encoder
from stages.mapping.formats.line_cache import KnownLines
from stages.mapping.records.type_guard import TypeGuard

heads = st.sampled_from(["m", "m,t=a", "m,t=b", "m,b=2,a=1", "m,a=1,b=2", r"m,t=a\ b", "n,t=ü", "m,t=", "m,time=1"])
values = st.one_of(
    st.sampled_from(["1", "1.5", "-0", "1.", ".5", "1e5", "1e400", "t", "T", "true", "false",
                     '""', '"a b,c=d"', '"a\nb"',
                     r'"q\"u"', "1i", "-9223372036854775808i", "9223372036854775808i", "01i", "1u", "-1u", "NaN",
                     "1" * 18, "1" * 17 + ".5", "x"]),
    st.integers(-10, 10).map(str), st.floats(allow_nan=False, allow_infinity=False).map(repr))
field_sets = st.lists(st.tuples(st.sampled_from(["f", "g", "s", "i", r"a\ b", "time"]), values), min_size=1, max_size=3)
times = st.one_of(st.sampled_from(["", "0", "-0", "007", "-1", "1700000000000000000", "9223372036854775806",
                                   "9223372036854775807", "999999999999999999", "99999999999999999999", "1x"]),
                  st.integers(-2**63, 2**63).map(str))


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A line, right or wrong."""
    fields = ",".join(f"{key}={value}" for key, value in draw(field_sets))
    return f"{draw(heads)} {fields} {draw(times)}".rstrip(" ") + draw(st.sampled_from(["", "\n", " ", "\r\n", "\n\n"]))


def encoder_of(precision: Precision, **options: Any) -> Encoder:
    """One with a type guard of its own."""
    book = FieldTypeRegistry()
    guard = TypeGuard(lambda measurement, kinds: book.decide("", measurement, kinds)[0])
    return Encoder(MappingConfig(format="line_protocol", **options), precision, "s", "t", lambda bucket: guard)


@given(st.lists(st.lists(st.lists(lines(), min_size=1, max_size=3).map("".join), min_size=1, max_size=12), min_size=1,
                max_size=3), st.booleans(), st.sampled_from(["ns", "us"]))
@example([['m f="a" 1'], ['m f="a\nm b" 5', 'm f="c" 7']], True, "ns")
@example([["m f=1,g=2i 1", "m f=2,g=3i 2", "m f=2,f=3 4", "m f=2i,g=3i 3", 'm f=1,g=2i 3\nm f="x" 5']], True, "ns")
def test_what_is_known_is_written_as_what_is_not(batches: list[list[str]], merge: bool, written: Precision) -> None:
    one, other = (encoder_of(written, merge_duplicates=merge) for _ in range(2))
    other._opener._known = KnownLines("ns", "us")  # learns nothing
    for batch in batches:
        origin = BatchOrigin(timestamps=list(range(1_000_000, 1_000_000 + len(batch))))
        payloads = [text.encode() for text in batch]
        assert one.encode(payloads, origin) == other.encode(payloads, origin)


@pytest.mark.parametrize(("text", "known"), [
    ('m,t=a f=2,s="z" 5', True), ('m,t=a f=2,s="z" 5\n', True), ('m,t=a f=-2.5,s="a\nb" -5', True),
    ('m,t=a f=2,s="z"', False), ('m,t=a s="z",f=2 5', False), ('m,t=b f=2,s="z" 5', False),
    (r'm,t=a f=2,s="\"" 5', False), ('m,t=a f=2i,s="z" 5', False), ('m,t=a f=2,s="z" 9223372036854775807', False),
    ('m,t=a f=2,s="z" 8999999999999999999', True), ('m,t=a f=2,s="z" 05', False),
    (f'm,t=a f=2,s="{"x" * 8_000}" 5', False)])
def test_a_line_is_known_by_its_head_and_its_fields(text: str, known: bool) -> None:
    lines_known = KnownLines("ns", "ns")
    lines_known.learn("m,t=a", "m", "m,t=a", {"f=": "1.5", "s=": '"x"'})
    found = lines_known.find(text, 0)
    assert (found is not None) == known
    if found is not None:
        assert found.text == text.rstrip("\n") + "\n" and found.end == len(text)
