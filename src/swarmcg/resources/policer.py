"""A rate of what is received, as the program that the kernel runs for each packet before its socket gets it:
BPF_PROG_TYPE_CGROUP_SKB.

It keeps one number, the time up to which the rate is used up. A packet passes when that time is not yet, and moves it
on by what its bytes take at the rate; unused time is kept for :data:`BUCKET_NS` and no longer. So in any span of time
at most the rate, the bucket and one packet pass, and a packet larger than the bucket passes, too. Processors that
receive at once take turns by compare-and-exchange; one that loses some turns lets its packet pass, and pays for it.

The bucket is as it is because of TCP, which finds out late: a sender whose last segments were all dropped waits for
200 ms (TCP_RTO_MIN). One flow over a virtual cable, Linux 6.18, at 0.25 to 100 MB/s, in five seconds from its first
packet on:

=======  ======================  ==================
bucket   of the rate is used     in the worst second
=======  ======================  ==================
20 ms    11 to 13 %              13 to 20 %
50 ms    25 to 29 %              31 to 42 %
100 ms   52 to 62 %              59 to 82 %
140 ms   70 to 80 %              77 to 100 %
250 ms   96 to 102 %             112 to 119 %
500 ms   104 to 106 %            136 to 160 %
1 s      110 to 116 %            164 to 187 %
=======  ======================  ==================
"""

from typing import Final

from swarmcg.resources.instruction import Instruction, Op, packed

__all__ = ["BUCKET_NS", "assemble"]

BUCKET_NS: Final = 140_000_000
_SECOND_NS: Final = 1_000_000_000
_TURNS: Final = 4

# Of include/uapi/linux/bpf.h.
_COMPARE_AND_EXCHANGE: Final = 0xF1  # BPF_CMPXCHG, Linux 5.12
_ADD_TO: Final = 0x00  # BPF_ADD
_A_MAP: Final = 1  # BPF_PSEUDO_MAP_FD
_LOOK_UP, _NOW = 1, 5  # bpf_map_lookup_elem, bpf_ktime_get_ns
_LENGTH_AT, _INTERFACE_AT = 0, 40  # len and ifindex of struct __sk_buff

_R0, _R1, _R2, _R3 = range(4)
_CONTEXT, _COST, _USED, _TIME, _STACK = range(6, 11)

_Code = list[Instruction]


def assemble(bytes_a_second: int, interface: int, number: int) -> bytes:
    """The program that drops what comes through the interface of this index beyond the rate.

    ``number`` is the descriptor of a map with one entry of 64 bits, which is 0 at first: the bucket is full then.
    """
    code = [
        *_pass_unless_through(interface),
        *_found(number),
        *_priced(bytes_a_second),
        *(instruction for left in reversed(range(_TURNS)) for instruction in _turn(left)),
        Instruction(Op.ATOMIC, _USED, _COST, operand=_ADD_TO),
        *_answer(1),
        *_answer(0),
    ]
    return packed(code)


def _pass_unless_through(interface: int) -> _Code:
    return [
        Instruction(Op.COPY, _CONTEXT, _R1),
        Instruction(Op.LOAD_WORD, _R1, _CONTEXT, _INTERFACE_AT),
        Instruction(Op.IF_EQUAL, _R1, offset=_ANSWER_LENGTH, operand=interface),
        *_answer(1),
    ]


def _answer(passes: int) -> _Code:
    return [Instruction(Op.SET, _R0, operand=passes), Instruction(Op.EXIT)]


_ANSWER_LENGTH: Final = 2


def _found(number: int) -> _Code:
    """The address of the map's one entry, and the time."""
    return [
        Instruction(Op.STORE_WORD, _STACK, offset=-4, operand=0),
        Instruction(Op.COPY, _R2, _STACK),
        Instruction(Op.ADD_NUMBER, _R2, operand=-4),
        *_constant(_R1, number, _A_MAP),
        Instruction(Op.CALL, operand=_LOOK_UP),
        Instruction(
            Op.UNLESS_EQUAL, _R0, offset=_ANSWER_LENGTH, operand=0
        ),  # never, but the verifier wants it said
        *_answer(1),
        Instruction(Op.COPY, _USED, _R0),
        Instruction(Op.CALL, operand=_NOW),
        Instruction(Op.COPY, _TIME, _R0),
    ]


def _priced(bytes_a_second: int) -> _Code:
    """The nanoseconds that the packet takes at the rate: no product of a length is too large for 64 bits."""
    return [
        Instruction(Op.LOAD_WORD, _COST, _CONTEXT, _LENGTH_AT),
        Instruction(Op.MULTIPLY, _COST, operand=_SECOND_NS),
        *_constant(_R1, bytes_a_second),
        Instruction(Op.DIVIDE, _COST, _R1),
    ]


_TURN_LENGTH: Final = 10


def _turn(left: int) -> _Code:
    """One try; ``left`` are those that come after it. Drops or passes, or goes on when another was faster."""
    behind = left * _TURN_LENGTH + 1  # the turns that follow, and the payment without a look
    return [
        Instruction(Op.LOAD_LONG, _R1, _USED, 0),
        Instruction(Op.COPY, _R3, _TIME),
        Instruction(Op.ADD_NUMBER, _R3, operand=-BUCKET_NS),
        Instruction(Op.IF_NOT_BELOW, _R3, _R1, 1),
        Instruction(Op.COPY, _R3, _R1),
        Instruction(Op.IF_NOT_BELOW, _R3, _TIME, 4 + behind + _ANSWER_LENGTH),
        Instruction(Op.ADD, _R3, _COST),
        Instruction(Op.COPY, _R0, _R1),
        Instruction(Op.ATOMIC, _USED, _R3, operand=_COMPARE_AND_EXCHANGE),
        Instruction(Op.IF_SAME, _R0, _R1, behind),
    ]


def _constant(target: int, value: int, kind: int = 0) -> _Code:
    low, high = value & 0xFFFF_FFFF, value >> 32
    return [
        Instruction(Op.CONSTANT, target, kind, operand=low - (1 << 32) if low >> 31 else low),
        Instruction(Op.SECOND_HALF, operand=high - (1 << 32) if high >> 31 else high),
    ]
