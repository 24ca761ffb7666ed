"""Mutated payloads of every format, among good ones: whatever a decoder makes of them, it costs no other message."""

import random
from pathlib import Path

import pytest

from pipeline.commands.config import load_config
from pipeline.commands.mapping_tests import payload_of, subscription_of
from pipeline.config.schema import CaseConfig, Config
from stages.mapping.batch import BatchOrigin
from stages.mapping.standalone import local_encoder

EXAMPLES = sorted((Path(__file__).parents[2] / "configs" / "mapping").glob("*.toml"))
#: Mutations of each good payload of an example, and of how many of its payloads, at most.
MUTATIONS, PAYLOADS = 150, 6
#: Pieces that mutations put in: what formats take for structure.
PIECES = (b"\x00", b"\xff", b"\x80", b'"', b"\\", b"{", b"[", b"}", b",", b"\n", b"=", b" ", b"-", b"9" * 30, b"NaN",
          b"\xc1", b"\xdf\xff\xff\xff\xff", b"\x7f" * 8, b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xed\xa0\x80")


def mutated(payload: bytes, chance: random.Random) -> bytes:
    """A payload with a few bytes changed, cut out, doubled or put in."""
    data = bytearray(payload)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at:at] = chance.choice(PIECES)
            case 1:
                del data[at:at + chance.randint(1, 8)]
            case 2:
                data[at:at] = data[at:at + chance.randint(1, 200)]
            case 3 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case _:
                data = data[:at]
    return bytes(data)


def good_cases(config: Config) -> list[CaseConfig]:
    """The example's cases that become points, those of its first topic and without headers."""
    return [case for case in config.tests
            if case.lines and not case.reject and not case.headers and subscription_of(config, case) == 0][:PAYLOADS]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_mutated_payload_costs_no_other_message(path: Path) -> None:
    config = load_config(str(path), {})
    chance = random.Random(path.stem)
    encoder = local_encoder(config, 0)
    headers = len(encoder.rules.config.header_tags)
    for case in good_cases(config):
        good = payload_of(case)
        alone = len(case.lines)
        for _ in range(MUTATIONS):
            batch = [good, mutated(good, chance), good]
            origin = BatchOrigin(0, 0, None, [case.timestamp_us + n * 1_000_000 for n in range(3)], case.timestamp_us,
                                 [("",) * headers] * 3 if headers else None)
            encoded = encoder.encode(batch, origin)
            assert {reject.at for reject in encoded.rejects} <= {1}, batch[1]
            sources = [source for group in encoded.groups
                       for source in (group.sources or [(index,) for index in range(group.points)])]
            assert sum(0 in source for source in sources) >= alone, batch[1]
            assert {index for source in sources for index in source} >= {0, 2}, batch[1]
