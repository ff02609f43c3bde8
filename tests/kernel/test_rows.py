"""The rows of LinuxResources whose controllers this guest's kernel has."""

from pathlib import Path

import pytest

from tests.contract.rows import MB, ROWS, Check, InForce, check_a_missing_write_is_noticed, check_in_force
from tests.kernel.conftest import CONTROLLERS


@pytest.mark.parametrize("row", [row for row in ROWS if row.controllers <= set(CONTROLLERS)], ids=str)
@pytest.mark.parametrize("check", [check_in_force, check_a_missing_write_is_noticed])
def test_the_row_is_in_force(home: Path, scratch_disk: Path, row: InForce, check: Check) -> None:
    for name in ("memory.low", "memory.min"):
        (home / name).write_text(str(8 * MB))  # a slice gets no more protection than its home has
    check(home, scratch_disk, row)
