"""Counts distinct texts approximately in 2 KiB: a HyperLogLog. Pure.

Source: Flajolet et al., "HyperLogLog: the analysis of a near-optimal cardinality estimation algorithm", 2007, with
64-bit hashes, so that no correction for large counts is needed.
"""

import math
from typing import Final

import xxhash

#: Bits of the hash that choose a register.
INDEX_BITS: Final = 11
REGISTERS: Final = 1 << INDEX_BITS
#: Standard error of an estimate, relative: 2.3 %.
ERROR: Final = 1.04 / math.sqrt(REGISTERS)
_REST_BITS: Final = 64 - INDEX_BITS
_ALPHA: Final = 0.7213 / (1 + 1.079 / REGISTERS)
_POWERS: Final = tuple(2.0 ** -rank for rank in range(_REST_BITS + 2))


def is_sketch(registers: bytes) -> bool:
    """Whether these are valid registers."""
    return len(registers) == REGISTERS and max(registers) <= _REST_BITS + 1


class HyperLogLog:
    """Approximate distinct counter."""

    def __init__(self, registers: bytes = bytes(REGISTERS)) -> None:
        self.registers = bytearray(registers)

    def add(self, text: str) -> bool:
        """Adds a text. False if that changes nothing."""
        digest = xxhash.xxh3_64_intdigest(text.encode())
        index = digest >> _REST_BITS
        rank = _REST_BITS - (digest & ((1 << _REST_BITS) - 1)).bit_length() + 1
        if rank <= self.registers[index]:
            return False
        self.registers[index] = rank
        return True

    def merge(self, registers: bytes) -> None:
        """Adds all texts of another counter."""
        self.registers = bytearray(map(max, self.registers, registers))

    def estimate(self) -> float:
        """The approximate number of distinct texts added."""
        estimate = _ALPHA * REGISTERS ** 2 / sum([_POWERS[rank] for rank in self.registers])
        empty = self.registers.count(0)
        if estimate <= 2.5 * REGISTERS and empty:
            return REGISTERS * math.log(REGISTERS / empty)
        return estimate
