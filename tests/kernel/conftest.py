"""Tests on a kernel of their own: pure cgroup v2 with controllers, in the guest that scripts/uml starts."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests import cgroups

HIERARCHY: Final = Path("/sys/fs/cgroup")
CONTROLLERS: Final = ("cpu", "io", "memory", "pids")


@pytest.fixture(scope="session", autouse=True)
def guest() -> None:
    """These tests take the whole machine for their own, so they run in a guest only."""
    if "SWARMCG_TEST_GUEST" not in os.environ:
        pytest.skip("runs in a guest: scripts/test kernel")
    enable_controllers(HIERARCHY)


@pytest.fixture
def home(guest: None) -> Iterator[Path]:  # noqa: ARG001  the hierarchy's controllers come first
    """A fresh, empty cgroup whose children have the controllers cpu, io, memory and pids."""
    with cgroups.fresh(HIERARCHY) as directory:
        enable_controllers(directory)
        yield directory


@pytest.fixture
def scratch_disk() -> Path:
    """The guest's second disk: 64 MB of ext4, not mounted."""
    return Path(os.environ["SWARMCG_TEST_DISK"])


def enable_controllers(directory: Path) -> None:
    (directory / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))
