"""A machine for the instructions that a policer is made of, written from the kernel's documentation
(Documentation/bpf/instruction-set.rst). It refuses everything else.
"""

import struct
import sys
from collections.abc import Callable, Iterator
from typing import Final

WORD: Final = 2**64
CONTEXT, VALUE, STACK = 2**60, 2**61, 2**62  # addresses
MAP: Final = 77
"""The descriptor of the one map."""

_RESULTS: Final[dict[int, Callable[[int, int, int], int]]] = {
    0xBF: lambda _to, by, _operand: by,
    0xB7: lambda _to, _by, operand: operand,
    0x07: lambda to, _by, operand: to + operand,
    0x0F: lambda to, by, _operand: to + by,
    0x27: lambda to, _by, operand: to * operand,
    0x3F: lambda to, by, _operand: to // by,
}
_JUMPS: Final[dict[int, Callable[[int, int, int], bool]]] = {
    0x15: lambda to, _by, operand: to == operand,
    0x55: lambda to, _by, operand: to != operand,
    0x1D: lambda to, by, _operand: to == by,
    0x3D: lambda to, by, _operand: to >= by,
}


class Slice:
    """What a policer keeps, and the clock that it reads. ``meddle`` runs where another processor may be faster."""

    def __init__(self, program: bytes, meddle: Callable[["Slice"], None] = lambda _: None) -> None:
        self._code: Final = list(_decoded(program))
        self._meddle: Final = meddle
        self._context = bytearray(192)
        self._key: bytes | None = None
        self._registers: dict[int, int] = {}
        self.used = 0
        self.now = 0

    def passes(self, now: int, length: int, interface: int) -> bool:
        self.now = now
        struct.pack_into("=I", self._context, 0, length)
        struct.pack_into("=I", self._context, 40, interface)
        answer = self._run()
        assert answer in {0, 1}
        return bool(answer)

    def _run(self) -> int:
        has = self._registers = {1: CONTEXT, 10: STACK}
        at = 0
        while True:
            opcode, to, by, offset, operand = self._code[at]
            at += 1
            if opcode in _RESULTS:
                has[to] = _RESULTS[opcode](has.get(to, 0), has.get(by, 0), operand) % WORD
            elif opcode in _JUMPS:
                assert offset > 0, "it never goes back"
                at += offset if _JUMPS[opcode](has[to], has.get(by, 0), operand) else 0
            elif opcode == 0x18:
                has[to] = operand % 2**32 | self._code[at][4] % 2**32 << 32
                at += 1
            elif opcode == 0x95:
                return has[0]
            else:
                self._touch(opcode, to, by, offset, operand)

    def _touch(self, opcode: int, to: int, by: int, offset: int, operand: int) -> None:
        """Memory and helpers."""
        has = self._registers
        if opcode == 0x61:
            assert has[by] == CONTEXT
            (has[to],) = struct.unpack_from("=I", self._context, offset)
        elif opcode == 0x79:
            assert (has[by], offset) == (VALUE, 0)
            has[to] = self.used
        elif opcode == 0x62:
            assert (has[to], offset) == (STACK, -4)
            self._key = struct.pack("=i", operand)
        elif opcode == 0x85:
            self._call(operand)
        else:
            assert opcode == 0xDB, f"opcode {opcode:#x}"
            assert (has[to], offset) == (VALUE, 0)
            self._change(has[by], operand)

    def _call(self, helper: int) -> None:
        has = self._registers
        if helper == 1:
            assert (has[1], has[2], self._key) == (MAP, STACK - 4, bytes(4))
            has[0] = VALUE
        else:
            assert helper == 5
            has[0] = self.now
        for lost in range(1, 6):
            has.pop(lost, None)

    def _change(self, value: int, how: int) -> None:
        self._meddle(self)
        if how == 0:
            self.used += value
            return
        assert how == 0xF1
        before = self.used
        self.used = value if before == self._registers[0] else before
        self._registers[0] = before


def _decoded(program: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    for opcode, both, offset, operand in struct.iter_unpack("=BBhi", program):
        low, high = both & 15, both >> 4
        to, by = (low, high) if sys.byteorder == "little" else (high, low)
        yield opcode, to, by, offset, operand
