"""A host for tests of places and homes: plain directories stand for its cgroups."""

import os
from pathlib import Path

import pytest

from swarmcg.cgroup.hierarchy import Hierarchy


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hierarchy:
    """A pure version 2 host without systemd, seen by root from the top."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    mount = str(tmp_path / "cg")
    os.makedirs(f"{mount}/own")
    Path(mount, "own", "cgroup.procs").write_text("")
    return Hierarchy(mount=mount, writable=True, own=mount, v1=frozenset(), systemd=False)
