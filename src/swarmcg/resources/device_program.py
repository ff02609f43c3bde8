"""Device rules as the program that the kernel runs at each open and mknod: BPF_PROG_TYPE_CGROUP_DEVICE.

The program is told which node is used and how (struct bpf_cgroup_dev_ctx in include/uapi/linux/bpf.h) and
answers 1 to allow it, 0 to refuse. It looks for the kind, then the major, then the minor number, and whatever
it finds first is final: the permissions of all rules that cover these numbers are put together here, not
there. So no path through the program tests a number twice, and the kernel's verifier, which walks every path,
needs no more steps than there are instructions.
"""

from collections.abc import Iterable
from itertools import chain, product
from typing import Final

from swarmcg.resources.device_rules import DeviceRules, Kind, Node
from swarmcg.resources.instruction import INSTRUCTION_BYTES, Instruction, Op, packed

__all__ = ["assemble", "most_bytes"]

_ANSWER, _CONTEXT, _KIND, _ACCESS, _MAJOR, _MINOR = range(6)

_KINDS: Final[dict[Kind, int]] = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, _CHAR
_BITS: Final = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, _READ, _WRITE
_EVERY: Final = frozenset(_BITS)
_EVERY_BIT: Final = 7
_NO_NUMBER: Final = -1
"""Stands for a number that no rule names: only wildcards cover it."""

# The kernel's own bounds (BPF_MAXINSNS before 5.2, a million steps of the verifier since), and how far a jump
# reaches (its offset has 16 bits).
_MOST_BEFORE_5_2: Final = 4096
_MOST: Final = 2**15 - 1
_LARGEST_OPERAND: Final = 2**31 - 1


_Code = list[Instruction]
_Entries = tuple[tuple[Node, frozenset[str]], ...]


def assemble(rules: DeviceRules) -> bytes:
    """The program that decides as :meth:`DeviceRules.allows` does. The same rules give the same bytes.

    One that is longer than :func:`most_bytes` cannot be loaded; its jumps mean nothing.
    """
    code = [
        Instruction(Op.LOAD_WORD, _KIND, _CONTEXT, 0),  # access_type: how in the upper half, the kind below
        Instruction(Op.COPY, _ACCESS, _KIND),
        Instruction(Op.AND, _KIND, operand=0xFFFF),
        Instruction(Op.SHIFT_RIGHT, _ACCESS, operand=16),
        Instruction(Op.LOAD_WORD, _MAJOR, _CONTEXT, 4),
        Instruction(Op.LOAD_WORD, _MINOR, _CONTEXT, 8),
    ]
    table = _Table(rules)
    for kind, number in _KINDS.items():
        code += _only_for(_KIND, number, _of_kind(table, kind))
    code += _answer(frozenset())
    return packed(code)


def most_bytes(kernel: tuple[int, int]) -> int:
    """The longest program that this kernel takes; (0, 0) stands for a kernel that is not known."""
    old = (0, 0) < kernel < (5, 2)
    return INSTRUCTION_BYTES * (_MOST_BEFORE_5_2 if old else _MOST)


class _Table:
    """The rules by node, so that long lists take no longer than they must."""

    def __init__(self, rules: DeviceRules) -> None:
        self._allow: Final = rules.allow
        self._exceptions: Final = _by_node(rules.exceptions)
        self._standard: Final = _by_node(rules.standard)
        self._withheld: Final = _by_node(rules.withheld)
        self._minors: Final[dict[tuple[Kind, int | None], set[int]]] = {}
        for node in chain(self._exceptions, self._standard, self._withheld):
            minors = self._minors.setdefault((node.kind, node.major), set())
            if node.minor is not None:
                minors.add(node.minor)

    def majors(self, kind: Kind) -> list[int]:
        return _numbers(major for named, major in self._minors if named == kind and major is not None)

    def minors(self, kind: Kind, major: int) -> list[int]:
        """Those that are named with this major number, or with any."""
        return _numbers(chain(*(self._minors.get((kind, number), ()) for number in (None, major))))

    def allowed(self, kind: Kind, major: int, minor: int) -> frozenset[str]:
        nodes = [Node(kind, *numbers) for numbers in product((None, major), (None, minor))]
        named, standard, withheld = (
            frozenset[str]().union(*(listed.get(node, ()) for node in nodes))
            for listed in (self._exceptions, self._standard, self._withheld)
        )
        return (_EVERY - named if self._allow else named) | (standard - withheld)


def _by_node(entries: _Entries) -> dict[Node, frozenset[str]]:
    found: dict[Node, frozenset[str]] = {}
    for node, access in entries:
        found[node] = found.get(node, frozenset()) | access
    return found


def _numbers(named: Iterable[int]) -> list[int]:
    """In order. Larger ones than an operand holds are left out: the kernel's have 12 and 20 bits."""
    return sorted({number for number in named if number <= _LARGEST_OPERAND})


def _of_kind(table: _Table, kind: Kind) -> _Code:
    blocks = (_only_for(_MAJOR, major, _of_major(table, kind, major)) for major in table.majors(kind))
    return [*chain(*blocks), *_of_major(table, kind, _NO_NUMBER)]


def _of_major(table: _Table, kind: Kind, major: int) -> _Code:
    otherwise = table.allowed(kind, major, _NO_NUMBER)
    exact = ((minor, table.allowed(kind, major, minor)) for minor in table.minors(kind, major))
    blocks = (_only_for(_MINOR, minor, _answer(allowed)) for minor, allowed in exact if allowed != otherwise)
    return [*chain(*blocks), *_answer(otherwise)]


def _only_for(register: int, number: int, block: _Code) -> _Code:
    """The block, jumped over when the register holds another number. The block ends with an answer."""
    reach = min(len(block), _MOST)  # beyond that the program is too long anyway
    return [Instruction(Op.UNLESS_EQUAL, register, offset=reach, operand=number), *block]


def _answer(allowed: frozenset[str]) -> _Code:
    """1 when nothing is asked for but these letters."""
    missing = _EVERY_BIT & ~sum(_BITS[letter] for letter in allowed)
    return [
        Instruction(Op.AND, _ACCESS, operand=missing),
        Instruction(Op.SET, _ANSWER, operand=0),
        *_only_for(_ACCESS, 0, [Instruction(Op.SET, _ANSWER, operand=1)]),
        Instruction(Op.EXIT),
    ]
