"""Instructions of BPF, as the kernel takes them (Documentation/bpf/instruction-set.rst)."""

import struct
import sys
from typing import Final, NamedTuple

__all__ = ["INSTRUCTION_BYTES", "Instruction"]

INSTRUCTION_BYTES: Final = 8


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
