"""What the slices of a host tell of themselves, on plain directories."""

import os
import resource
from pathlib import Path

from swarmcg.cgroup.names import new_incarnation, slice_name
from swarmcg.supervisor.remains import work_directories


def test_directories_are_not_known_to_be_free_while_slices_cannot_be_seen(tmp_path: Path) -> None:
    (tmp_path / slice_name("bot", new_incarnation())).mkdir()
    assert work_directories(str(tmp_path)) == frozenset()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        found = work_directories(str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found is None


def test_what_is_gone_or_no_directory_claims_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert work_directories(os.fspath(tmp_path / "gone")) == frozenset()
    assert work_directories(os.fspath(tmp_path / "file")) == frozenset()
