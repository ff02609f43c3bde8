"""Tests in a machine whose PID 1 is systemd: scripts/vm starts it, and a Vagrant box is one."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests import cgroups

HIERARCHY: Final = Path("/sys/fs/cgroup")
LEAF: Final = "tests"
MARK_OF_ALL: Final = re.compile(r"^pytestmark = pytest\.mark\.(\w+)", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file of which nothing is selected is not even imported: in an emulated machine that takes seconds."""
    mark = MARK_OF_ALL.search(collection_path.read_text()) if collection_path.is_file() else None
    return True if mark and re.search(rf"\bnot {mark[1]}\b", config.option.markexpr) else None


@pytest.fixture(scope="session", autouse=True)
def unit() -> Path:
    """The cgroup of the unit that these tests run in. systemd delegated it; all its processes sit in a leaf."""
    if "SWARMCG_TEST_VM" not in os.environ:
        pytest.skip("runs in a machine of its own: scripts/test systemd")
    unit = HIERARCHY / Path("/proc/self/cgroup").read_text().strip().rpartition(":")[2].lstrip("/")
    leaf = unit / LEAF
    leaf.mkdir()
    for pid in (unit / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(pid)
    hand_down(unit)
    return unit


@pytest.fixture
def home(unit: Path) -> Iterator[Path]:
    """A fresh, empty cgroup in the delegated unit, whose children have all that systemd hands down."""
    with cgroups.fresh(unit) as directory:
        hand_down(directory)
        yield directory


@pytest.fixture
def top_home(unit: Path) -> Iterator[Path]:  # noqa: ARG001  the machine has to be one of ours
    """A fresh, empty cgroup below the hierarchy's root, with the controllers that systemd does not know as well."""
    hand_down(HIERARCHY)
    with cgroups.fresh(HIERARCHY) as directory:
        hand_down(directory)
        yield directory


@pytest.fixture
def scratch_disk() -> Path:
    """The machine's disk for trials: 256 MB, nothing on it."""
    return Path(os.environ["SWARMCG_TEST_DISK"]).resolve()


def hand_down(directory: Path) -> None:
    offered = (directory / "cgroup.controllers").read_text().split()
    (directory / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in offered))
