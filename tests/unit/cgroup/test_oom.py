"""What the kernel log says of an out-of-memory kill, and what it does not."""

import os

import pytest

from swarmcg.cgroup import oom
from swarmcg.cgroup.oom import kernel_log

OWN = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg=/home/bot.1,task_memcg=/home/bot.1/main,task=python,pid=42,uid=0"
)
HOST = (
    "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,"
    "global_oom,task_memcg=/home/bot.1/main,task=python,pid=42,uid=0"
)
KILLED = "Memory cgroup out of memory: Killed process 42 (python) total-vm:1kB, anon-rss:1kB"
KILLED_BY_HOST = "Out of memory: Killed process 42 (python) total-vm:1kB, anon-rss:1kB"


def log(monkeypatch: pytest.MonkeyPatch, *texts: str, at: float = 100.0) -> None:
    monkeypatch.setattr(oom, "_records", lambda: [(at, text) for text in texts])
    monkeypatch.setattr(oom, "_pid_namespace", lambda: oom._INITIAL_PID_NAMESPACE)


def test_the_cgroup_whose_limit_was_hit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    log(monkeypatch, OWN, KILLED)
    assert kernel_log(42, 50) == ("/home/bot.1", True)


def test_a_host_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    log(monkeypatch, HOST, KILLED_BY_HOST)
    assert kernel_log(42, 50) == (None, False)


def test_another_process_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log(monkeypatch, OWN, KILLED)
    assert kernel_log(4, 50) is None
    assert kernel_log(421, 50) is None


def test_an_older_process_of_the_same_pid_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log(monkeypatch, OWN, KILLED, at=10.0)
    assert kernel_log(42, 50) is None


def test_a_process_cannot_forge_it_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    log(
        monkeypatch,
        "systemd[1]: started, pid=42, Killed process 42 (x)",
        "python: Killed process 42 (a) total-vm",
    )
    assert kernel_log(42, 50) is None


def test_in_another_pid_namespace_the_log_s_pids_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log(monkeypatch, OWN, KILLED)
    monkeypatch.setattr(oom, "_pid_namespace", lambda: "pid:[4026532000]")
    assert kernel_log(42, 50) is None


def test_a_log_that_ends_is_no_endless_one() -> None:
    """The kernel's never does, but /dev/null in its place does at once."""
    with open(os.devnull, "rb") as null:
        assert oom._read_records(null.fileno()) == []
