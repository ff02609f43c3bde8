"""No field of LinuxResources is without a test: that it is in force on a real kernel, or that it is refused."""

from typing import Any, Final

import pytest

from tests.contract.rows import ELSEWHERE, RDMA, ROWS, WEIGHTS
from tests.unit.resources.hosts import planned
from tests.unit.resources.test_spec import WHOLE

NUMBERED: Final = {"major": 8, "minor": 0}
# cgroup v2 has no file for these; the value is one that asks for what it does not do.
REFUSED: Final[dict[str, dict[str, Any]]] = {
    "cpu.realtimeRuntime": {"cpu": {"realtimeRuntime": 5000}},
    "cpu.realtimePeriod": {"cpu": {"realtimePeriod": 100_000}},
    "memory.kernel": {"memory": {"kernel": 4096}},
    "memory.kernelTCP": {"memory": {"kernelTCP": 4096}},
    "memory.swappiness": {"memory": {"swappiness": 60}},
    "memory.disableOOMKiller": {"memory": {"disableOOMKiller": True}},
    "memory.useHierarchy": {"memory": {"useHierarchy": False}},
    "blockIO.leafWeight": {"blockIO": {"leafWeight": 100}},
    "blockIO.weightDevice.leafWeight": {"blockIO": {"weightDevice": [{**NUMBERED, "leafWeight": 100}]}},
}


def fields() -> set[str]:
    """The fields of the specification, with the parts of what is no limit by itself."""
    groups = ("memory", "cpu", "pids", "blockIO", "network")
    found = {f"{group}.{name}" for group in groups for name in WHOLE[group]}
    found |= {"devices", "hugepageLimits", "rdma", "unified"}
    return found - {"blockIO.weightDevice"} | {
        "blockIO.weightDevice.weight",
        "blockIO.weightDevice.leafWeight",
    }


def test_every_field_is_shown_in_force_or_refused() -> None:
    in_force = {row.field for row in (*ROWS, *RDMA, *(row for rows in WEIGHTS.values() for row in rows))}
    assert sorted([*in_force, *ELSEWHERE, *REFUSED]) == sorted(fields())


@pytest.mark.parametrize("field", REFUSED)
def test_what_version_2_has_no_file_for_is_refused(field: str) -> None:
    made = planned(REFUSED[field])
    (found,) = made.refused
    assert found.field.replace("[0]", "") == field
    assert found.why
    assert found.remedy
    assert made.steps == ()
