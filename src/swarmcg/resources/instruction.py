"""Instructions of BPF, as the kernel takes them (Documentation/bpf/instruction-set.rst)."""

import enum
import struct
import sys
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["INSTRUCTION_BYTES", "Instruction", "Op", "packed"]

INSTRUCTION_BYTES: Final = 8


class Op(enum.IntEnum):
    """The opcodes that our programs use, of include/uapi/linux/bpf.h and bpf_common.h.

    BPF_X ones take their second value from the source register, BPF_K ones from the operand.
    """

    LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
    LOAD_LONG = 0x79  # BPF_LDX | BPF_MEM | BPF_DW
    STORE_WORD = 0x62  # BPF_ST | BPF_MEM | BPF_W
    CONSTANT = 0x18  # BPF_LD | BPF_IMM | BPF_DW, of two instructions
    SECOND_HALF = 0x00  # what follows CONSTANT
    COPY = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
    SET = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
    ADD = 0x0F  # BPF_ALU64 | BPF_ADD | BPF_X
    ADD_NUMBER = 0x07  # BPF_ALU64 | BPF_ADD | BPF_K
    MULTIPLY = 0x27  # BPF_ALU64 | BPF_MUL | BPF_K
    DIVIDE = 0x3F  # BPF_ALU64 | BPF_DIV | BPF_X
    AND = 0x57  # BPF_ALU64 | BPF_AND | BPF_K
    SHIFT_RIGHT = 0x77  # BPF_ALU64 | BPF_RSH | BPF_K
    IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
    UNLESS_EQUAL = 0x55  # BPF_JMP | BPF_JNE | BPF_K
    IF_SAME = 0x1D  # BPF_JMP | BPF_JEQ | BPF_X
    IF_NOT_BELOW = 0x3D  # BPF_JMP | BPF_JGE | BPF_X
    ATOMIC = 0xDB  # BPF_STX | BPF_ATOMIC | BPF_DW
    CALL = 0x85  # BPF_JMP | BPF_CALL
    EXIT = 0x95  # BPF_JMP | BPF_EXIT


class Instruction(NamedTuple):
    """struct bpf_insn."""

    code: int
    target: int = 0
    source: int = 0
    offset: int = 0
    operand: int = 0

    def packed(self) -> bytes:
        """Its eight bytes, in the order of this machine."""
        low, high = (self.target, self.source)[:: 1 if sys.byteorder == "little" else -1]
        return struct.pack("=BBhi", self.code, low | high << 4, self.offset, self.operand)


def packed(code: Iterable[Instruction]) -> bytes:
    """The program as bpf(2) takes it."""
    return b"".join(instruction.packed() for instruction in code)
