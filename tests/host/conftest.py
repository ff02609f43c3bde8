"""Tests on this machine's own kernel, in cgroups of their own below its cgroup2 mount."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import cgroups


@pytest.fixture
def home() -> Iterator[Path]:
    """A fresh, empty cgroup, possibly without any controller."""
    mount = cgroups.mount()
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("this machine has no cgroup2 mount that we may write to")
    with cgroups.fresh(mount) as directory:
        yield directory
