"""From fork to exec: each step that fails comes back by name and errno. A plain file stands for cgroup.procs."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmcg.keeper.spawn import Order, birth, executed, ignored_signals, start_time


@pytest.fixture
def procs(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "procs", os.O_WRONLY | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture
def run(procs: int) -> Callable[..., tuple[tuple[str, int] | None, int]]:
    def go(*argv: str, env: dict[str, str] | None = None, **more: Any) -> tuple[tuple[str, int] | None, int]:
        order = Order(argv, {"PATH": os.environ["PATH"]} if env is None else env, **({"procs": procs} | more))
        born = birth(order, ignored_signals())
        born.release()
        trouble = born.trouble()
        return trouble, os.waitstatus_to_exitcode(os.waitpid(born.pid, 0)[1])

    return go


Run = Callable[..., tuple[tuple[str, int] | None, int]]


def test_it_joins_by_writing_0_and_runs(run: Run, tmp_path: Path) -> None:
    assert run("sh", "-c", "exit 3") == (None, 3)
    assert (tmp_path / "procs").read_text() == "0"


@pytest.mark.parametrize(
    ("argv", "number"),
    [
        ("/nonexistent", errno.ENOENT),
        ("/", errno.EACCES),
        ("/etc/passwd", errno.EACCES),
        ("not-in-path-at-all", errno.ENOENT),
    ],
)
def test_exec_fails_by_its_errno(run: Run, argv: str, number: int) -> None:
    assert run(argv) == (("exec", number), 127)


def test_a_file_without_a_format(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo")
    script.chmod(0o755)
    assert run(str(script)) == (("exec", errno.ENOEXEC), 127)


def test_each_step_before_exec_is_named(run: Run) -> None:
    assert run("true", cwd="/nonexistent")[0] == ("chdir", errno.ENOENT)
    assert run("true", procs=-1)[0] == ("join", errno.EBADF)
    assert run("true", stdio=(1 << 20, 1, 2))[0] == ("stdio", errno.EBADF)
    assert run("true", oom_score_adj=5000)[0] == ("oom_score_adj", errno.EINVAL)


def test_a_fault_that_is_no_errno_ends_the_child_all_the_same(run: Run) -> None:
    trouble, status = run("a\0b")
    assert trouble is not None
    assert trouble[0].startswith("exec:")
    assert status == 127


def test_a_child_waits_at_the_gate_and_ends_with_it(procs: int) -> None:
    born = birth(Order(["true"], {}, procs=procs), ignored_signals())
    assert not executed(born.pid)
    os.close(born._gate)
    assert os.waitstatus_to_exitcode(os.waitpid(born.pid, 0)[1]) == 127
    os.close(born.errors)


def test_one_that_is_killed_before_exec_is_told_apart(procs: int) -> None:
    born = birth(Order(["true"], {}, procs=procs), ignored_signals())
    os.kill(born.pid, signal.SIGKILL)
    os.waitid(os.P_PID, born.pid, os.WEXITED | os.WNOWAIT)
    born.release()
    assert born.trouble() == ("killed before exec", 0)
    os.waitpid(born.pid, 0)


def test_a_service_has_a_session_and_default_signals_and_not_the_descriptors_that_we_opened(
    run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    program = f"""
import os, signal
ignored = [s for s in (1, 2, 3, 15) if signal.getsignal(s) == signal.SIG_IGN]
links = [os.readlink(e.path) for e in os.scandir("/proc/self/fd") if os.path.exists(e.path)]
open({str(out)!r}, "w").write(repr((os.getsid(0) == os.getpid(), ignored, any("procs" in to for to in links))))
"""
    with open(os.devnull, "rb+") as null:
        three = (null.fileno(),) * 3
        assert run(sys.executable, "-I", "-S", "-c", program, stdio=three) == (None, 0)
    assert out.read_text() == "(True, [], False)"


def test_a_fork_that_fails_leaves_no_descriptor(procs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")

    def refused() -> int:
        raise OSError(errno.EAGAIN, "refused")

    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(OSError, match="refused"):
        birth(Order(["true"], {}, procs=procs), ignored_signals())
    assert os.listdir("/proc/self/fd") == before


def test_start_time_and_state_are_read_past_any_name() -> None:
    assert start_time(os.getpid()) > 0
    assert executed(os.getpid())
    assert executed(2**22 + 1)  # there is no such process
