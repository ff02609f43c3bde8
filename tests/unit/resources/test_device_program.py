"""The program decides as the rules do: run by a machine of our own, for every kind, number and permission."""

from itertools import combinations, product
from typing import Any, Final

import pytest
from hypothesis import given, strategies as st

from swarmcg.errors import ResourcesError
from swarmcg.resources import Device, device_rules
from swarmcg.resources.device_program import assemble, most_bytes
from swarmcg.resources.device_rules import DeviceRules, Node
from swarmcg.resources.instruction import INSTRUCTION_BYTES
from tests.unit.resources.bpf_machine import decides
from tests.unit.resources.hosts import planned

ACCESSES: Final = tuple("".join(some) for n in range(4) for some in combinations("rwm", n))


def allow(kind: Any, major: int | None, minor: int | None, access: str = "rwm") -> Device:
    return Device(allow=True, type=kind, major=major, minor=minor, access=access)


def deny(kind: Any, major: int | None, minor: int | None, access: str = "rwm") -> Device:
    return Device(allow=False, type=kind, major=major, minor=minor, access=access)


ALLOW_ALL: Final = Device(allow=True, access="rwm")


@pytest.mark.parametrize(
    ("rules", "asked", "allowed"),
    [
        ([], ("c", 10, 200, "r"), False),
        ([], ("c", 10, 200, "m"), True),
        ([], ("c", 1, 3, "rwm"), True),
        ([], ("b", 1, 3, "r"), False),
        ([], ("c", 136, 4711, "rw"), True),
        ([], ("c", 5, 1, "w"), False),
        ([allow("c", 10, 200, "rw")], ("c", 10, 200, "r"), True),
        ([allow("c", 10, 200, "rw")], ("c", 10, 200, "w"), True),
        ([allow("c", 10, 200, "rw")], ("c", 10, 200, "rw"), True),
        ([allow("c", 10, 200, "rw")], ("b", 10, 200, "rw"), False),
        ([allow("c", 10, 200, "rw")], ("c", 200, 10, "rw"), False),
        ([allow("c", 10, 200, "r")], ("c", 10, 200, "rw"), False),
        ([allow("c", 10, 200, "r"), allow("c", 10, None, "w")], ("c", 10, 200, "rw"), True),
        ([allow("c", 10, 200, "r"), allow("c", 10, None, "w")], ("c", 10, 201, "rw"), False),
        ([allow("c", 10, 200, "r"), allow("c", None, 200, "w")], ("c", 10, 200, "rw"), True),
        ([allow("c", 10, None, "r"), allow("c", None, 7, "w")], ("c", 10, 7, "rw"), True),
        ([allow("c", 10, None, "r"), allow("c", None, 7, "w")], ("c", 11, 7, "w"), True),
        ([allow("c", 10, None, "r"), allow("c", None, 7, "w")], ("c", 11, 7, "r"), False),
        ([allow("b", None, None, "r")], ("b", 8, 0, "r"), True),
        ([allow("b", None, None, "r")], ("b", 8, 0, "w"), False),
        ([allow("b", 259, 1048575)], ("b", 259, 1048575, "rwm"), True),
        ([allow("b", 4095, 2**32 - 1)], ("b", 4095, 1048575, "r"), False),
        ([ALLOW_ALL, deny("b", 8, 0)], ("b", 8, 0, "r"), False),
        ([ALLOW_ALL, deny("b", 8, 0)], ("b", 8, 1, "rw"), True),
        ([ALLOW_ALL, deny("b", 8, 0, "w")], ("b", 8, 0, "r"), True),
        ([ALLOW_ALL, deny("b", 8, None)], ("b", 8, 77, "r"), False),
        ([ALLOW_ALL, deny("b", 8, None)], ("b", 9, 77, "r"), True),
        ([ALLOW_ALL, deny("c", 1, 9)], ("c", 1, 9, "r"), False),
        ([deny("c", 1, 9)], ("c", 1, 9, "m"), False),
        ([deny("c", 1, 9)], ("c", 1, 8, "rwm"), True),
    ],
)
def test_the_program_decides(rules: list[Device], asked: Any, *, allowed: bool) -> None:
    made = device_rules.complete(rules)
    assert made.allows(*asked) is allowed
    assert decides(assemble(made), *asked) is allowed


numbers = st.sampled_from([None, 0, 1, 2, 255])
entries = st.lists(
    st.tuples(
        st.builds(Node, st.sampled_from(["b", "c"]), numbers, numbers),
        st.sampled_from([frozenset(access) for access in ACCESSES]),
    ),
    max_size=8,
    unique_by=lambda entry: entry[0],
).map(tuple)
rules_of_all_sorts = st.builds(DeviceRules, st.booleans(), entries, entries, entries)


@given(rules_of_all_sorts)
def test_the_program_decides_as_the_rules_do(rules: DeviceRules) -> None:
    program = assemble(rules)
    for kind, major, minor, access in product("bc", (0, 1, 2, 3, 255), (0, 1, 2, 3, 255), ACCESSES):
        expected = rules.allows(kind, major, minor, access)  # type: ignore[arg-type]  # product gives str
        assert decides(program, kind, major, minor, access) is expected


@given(rules_of_all_sorts)
def test_no_jump_leads_out_of_the_program(rules: DeviceRules) -> None:
    program = assemble(rules)
    assert len(program) % INSTRUCTION_BYTES == 0
    assert program == assemble(rules)
    assert decides(program, "c", 4095, 2**20 - 1, "rwm") is rules.allows("c", 4095, 2**20 - 1, "rwm")


@pytest.mark.parametrize(
    ("kernel", "fit", "too_many"), [((5, 1), 650, 690), ((5, 2), 5400, 5500), ((0, 0), 5400, 5500)]
)
def test_how_many_nodes_a_kernel_takes(kernel: tuple[int, int], fit: int, too_many: int) -> None:
    def length(nodes: int) -> int:
        return len(assemble(device_rules.complete([allow("c", 10, minor) for minor in range(nodes)])))

    assert length(fit) <= most_bytes(kernel) < length(too_many)


def test_a_long_list_decides_for_its_last_entry_too() -> None:
    program = assemble(device_rules.complete([allow("c", 10, minor) for minor in range(5400)]))
    assert decides(program, "c", 10, 5399, "rwm")
    assert not decides(program, "c", 10, 5400, "r")


def test_what_the_kernel_would_refuse_is_an_error_of_the_plan() -> None:
    rules = [{"allow": True, "type": "c", "major": 10, "minor": i, "access": "r"} for i in range(700)]
    assert planned({"devices": rules}, kernel=(6, 1)).devices is not None
    with pytest.raises(ResourcesError, match="this kernel takes 4096") as caught:
        planned({"devices": rules}, kernel=(5, 1))
    assert caught.value.path == "devices"
    assert "without minor" in (caught.value.remedy or "")
