"""The quick ways of MessagePack, CSV, text and Avro read what their transcoders read, and nothing else.

Some seeds of `scripts/fuzz`, which tries others for as long as it is told to.
"""

import msgspec
import pytest

from pipeline.config.schema import MappingConfig
from stages.mapping.formats import Quick, quick
from tests.fuzz.formats import try_formats

SEEDS = 400
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_random_payloads(part: int) -> None:
    assert not [f"seed {seed}: {words}" for seed in range(part, SEEDS, PARTS) for words in try_formats(seed)]


def way(config: MappingConfig) -> Quick:
    found = quick(config)
    assert found is not None
    return found


def test_usual_payloads_are_read_quickly_also_beside_bad_ones() -> None:
    encode = msgspec.msgpack.encode
    found = way(MappingConfig(format="msgpack")).texts(
        [encode({"a": 1, "b": {"c": [1.5, None]}}), b"\xc1", encode({"a": float("nan")}), b"\x82\xa1a\x01\xa1a\x02",
         encode({"a": None, "b": "x"})])
    assert found == [b'{"a":1,"b":{"c":[1.5,null]}}', None, None, None, b'{"a":null,"b":"x"}']


def test_lines_of_csv_are_read_by_column() -> None:
    found = way(MappingConfig(format="csv", csv_header=("a", "b%"))).texts(
        [b"1,x", b"2.5,\n", b'"3",y', b"4,\xff", b"true,5"])
    assert found == [b'{"a":1,"b%":"x"}', b'{"a":2.5,"b%":null}', None, None, b'{"a":true,"b%":5}']
