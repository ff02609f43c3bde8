"""A machine for the few instructions that device programs are made of, written from the kernel's documentation
(Documentation/bpf/instruction-set.rst). It refuses everything else, and whatever the kernel's verifier would.
"""

import struct
import sys
from typing import Final

DEVICES: Final = {"b": 1, "c": 2}
BITS: Final = {"m": 1, "r": 2, "w": 4}
WORD: Final = 2**64


def decides(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """What the program answers for a use of a device node."""
    asked = sum(BITS[letter] for letter in set(access))
    context = struct.pack("=III", asked << 16 | DEVICES[kind], major, minor)
    answer = run(program, context)
    assert answer in {0, 1}, "the kernel takes no other answers"
    return bool(answer)


def run(program: bytes, context: bytes) -> int:
    code = list(struct.iter_unpack("=BBhi", program))
    registers: dict[int, int] = {1: -1}  # the context's address, which is good for loads only
    at = 0
    while True:
        assert at < len(code), "it runs off the end"
        opcode, both, offset, operand = code[at]
        target, source = both & 15, both >> 4
        if sys.byteorder == "big":
            target, source = source, target
        at += 1
        if opcode == 0x61:
            assert registers[source] == -1
            (registers[target],) = struct.unpack_from("=I", context, offset)
        elif opcode == 0xBF:
            registers[target] = registers[source]
        elif opcode == 0xB7:
            registers[target] = operand % WORD
        elif opcode == 0x57:
            registers[target] &= operand % WORD
        elif opcode == 0x77:
            registers[target] >>= operand
        elif opcode == 0x55:
            assert offset >= 0, "it never goes back"
            at += offset if registers[target] != operand % WORD else 0
        else:
            assert opcode == 0x95, f"opcode {opcode:#x}"
            return registers[0]
