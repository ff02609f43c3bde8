"""Every row of LinuxResources that is a file, on a kernel with all controllers; rdma has a module of its own."""

from pathlib import Path
from typing import Final

import pytest

from tests.contract.rows import (
    MB,
    ROWS,
    WEIGHTS,
    Check,
    InForce,
    check_a_missing_write_is_noticed,
    check_in_force,
)
from tests.systemd.machine import sharing

# What the tier kernel shows in a tenth of the time is no part of the smoke selection.
ALONE_HERE: Final = [row for row in ROWS if row.controllers & {"cpuset", "hugetlb"}]
ELSEWHERE_TOO: Final = [pytest.param(row, marks=pytest.mark.full) for row in ROWS if row not in ALONE_HERE]


@pytest.mark.parametrize("row", [*ALONE_HERE, *ELSEWHERE_TOO], ids=str)
@pytest.mark.parametrize("check", [check_in_force, check_a_missing_write_is_noticed])
def test_the_row_is_in_force(top_home: Path, scratch_disk: Path, row: InForce, check: Check) -> None:
    for name in ("memory.low", "memory.min"):
        (top_home / name).write_text(str(8 * MB))  # a slice gets no more protection than its home has
    check(top_home, scratch_disk, row)


@pytest.mark.parametrize(("how", "row"), [(how, row) for how in WEIGHTS for row in WEIGHTS[how]], ids=str)
@pytest.mark.parametrize("check", [check_in_force, check_a_missing_write_is_noticed])
def test_the_weight_is_in_force(
    top_home: Path, scratch_disk: Path, how: str, row: InForce, check: Check
) -> None:
    with sharing(how, scratch_disk):
        check(top_home, scratch_disk, row)
