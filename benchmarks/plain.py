"""A home and a slice of plain files on a tmpfs, for hosts whose cgroup2 has no controllers: all that an update does
but for the kernel's own part of a write, which the files of the core show.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from unittest import mock

from swarmcg.cgroup import find
from swarmcg.cgroup.hierarchy import Hierarchy, look
from swarmcg.cgroup.names import new_incarnation, slice_name
from swarmcg.cgroup.slice import Slice

__all__ = ["FILES", "slice_of_files"]

CONTROLLERS: Final = {"cgroup.controllers": "cpu memory pids", "cgroup.subtree_control": "cpu memory pids"}
PROTECTION: Final = {"memory.low": "16777216", "memory.min": "8388608"}
# What benchmarks.update.limits(0) makes of a slice. Nobody cuts such a file before it is written, so what is written
# there afterwards has to be as long.
FILES: Final = {
    "cpu.weight": "100",
    "cpu.max": "50000 100000",
    "cpu.max.burst": "1000",
    "cpu.idle": "0",
    "memory.current": "4096",
    "memory.max": "67108864",
    "memory.swap.max": "67108864",
    "memory.high": "50331648",
    "memory.oom.group": "0",
    "pids.max": "100",
    **PROTECTION,
}


@contextlib.contextmanager
def slice_of_files() -> Iterator[str]:
    """The path of a slice whose home believes itself on a unified hierarchy. The price of looking there is paid."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="swarmcg-bench-") as top:
        seen = Hierarchy(mount=top, writable=True, own=None, v1=frozenset(), systemd=False)

        def looked(*, own: bool) -> Hierarchy:
            look(own=own)
            return seen

        home = Path(top, "swarmcg")
        _fill(Path(top), CONTROLLERS)
        _fill(home, {**CONTROLLERS, **PROTECTION})
        name = slice_name("update", incarnation := new_incarnation())
        held = Slice.create(str(home / name), {"bot_id": "update", "incarnation": incarnation, "ours": True})
        try:
            _fill(home / name, FILES)
            with mock.patch.object(find, "look", looked):
                yield held.path
        finally:
            held.close()


def _fill(directory: Path, files: dict[str, str]) -> None:
    directory.mkdir(exist_ok=True)
    for file, text in files.items():
        (directory / file).write_text(f"{text}\n")
