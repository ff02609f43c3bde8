"""A task that calls swarmcg itself: what it starts gets slices inside of the task's own, and ends with that."""

import contextlib
import json
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.command import SOON_S, SWARMCG, Command, line

FOREVER = "while :; do sleep 1; done"


@pytest.fixture
def swarmcg(home: Path, tmp_path: Path) -> Command:
    return Command(home, tmp_path)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        with contextlib.suppress(OSError):
            os.close(fd)


def test_a_run_in_a_run_makes_its_slice_inside_and_leaves_nothing(swarmcg: Command, home: Path) -> None:
    ended = swarmcg("run", "--", SWARMCG, "run", "--", "cat", "/proc/self/cgroup")
    assert ended.returncode == 0, ended.stderr
    place = next(line for line in ended.stdout.splitlines() if line.startswith("0::"))
    outer, inner = (part for part in place.split("/") if "." in part)
    assert f"/{home.name}/{outer}/swarmcg/{inner}/main" in place
    assert [report.reason for report in swarmcg.reports()] == ["exited", "exited"]
    assert not swarmcg.slices()


def test_a_detached_bot_is_refused_inside(swarmcg: Command) -> None:
    ended = swarmcg("run", "--", SWARMCG, "run", "--detach", "--", "true")
    assert ended.returncode != 0
    assert "cannot be detached from inside of a slice" in ended.stderr


def test_the_kill_of_the_outer_slice_ends_the_inner_ones(swarmcg: Command, pipe: tuple[int, int]) -> None:
    """Also the processes of an inner run which ignores every signal, and whose own supervisor is killed with it."""
    held, given = pipe
    deaf = f"trap '' TERM INT HUP; echo ready; {FOREVER}"
    words = ("--grace", "0", "--", SWARMCG, "run", "--", "sh", "-c", deaf)
    with swarmcg.running("run", *words, pass_fds=(given,)) as process:
        os.close(given)
        assert line(process.stdout) == "ready"
        process.send_signal(signal.SIGTERM)
        process.wait(SOON_S)
    # Whoever still lived would hold the other end open.
    assert select.select([held], [], [], SOON_S)[0]
    assert os.read(held, 1) == b""
    assert not swarmcg.slices()


def test_who_looks_from_inside_sees_what_is_inside(swarmcg: Command, tmp_path: Path) -> None:
    for name in ("runs", "ends"):
        os.mkfifo(tmp_path / name)
    inner = "echo >runs; read _ <ends"
    script = (
        f"{SWARMCG} run --id inner -- sh -c '{inner}' & read _ <runs; {SWARMCG} ps --json; echo >ends; wait"
    )
    with swarmcg.running("run", "--id", "beside", "--", "sh", "-c", f"echo ready; {FOREVER}") as other:
        assert line(other.stdout) == "ready"
        ended = swarmcg("run", "--id", "outer", "--", "sh", "-c", script, cwd=tmp_path)
        other.send_signal(signal.SIGTERM)
        other.wait(SOON_S)
    assert [bot["bot_id"] for bot in json.loads(ended.stdout)] == ["inner"]
