"""What the kernel log says of an out-of-memory kill, and what it does not."""

import os
from pathlib import Path

import pytest

from swarmcg.cgroup import oom
from swarmcg.cgroup.oom import Oom, OomWatch, kernel_log

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


@pytest.fixture
def watch(tmp_path: Path) -> OomWatch:
    """A slice in which one process was killed since the last look with the main process alive."""
    (tmp_path / "memory.events").write_text("oom 0\noom_kill 0\n")
    made = OomWatch(str(tmp_path))
    made.look(os.getpid())
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 1\n")
    return made


def test_the_log_s_word_comes_first(monkeypatch: pytest.MonkeyPatch, watch: OomWatch) -> None:
    log(monkeypatch, OWN.replace("bot.1", os.path.basename(watch._slice.directory)), KILLED)
    assert watch.verdict(42, 50) == Oom("oom-own-limit", "kmsg")
    log(monkeypatch, OWN, KILLED)
    assert watch.verdict(42, 50) == Oom("oom-ancestor", "kmsg")
    log(monkeypatch, HOST, KILLED_BY_HOST)
    assert watch.verdict(42, 50) == Oom("oom-host", "kmsg")


def test_without_a_log_the_counter_speaks(monkeypatch: pytest.MonkeyPatch, watch: OomWatch) -> None:
    log(monkeypatch)
    assert watch.verdict(42, 50) == Oom("oom-own-limit", "counter")


def test_a_log_that_begins_after_the_start_says_nothing_by_its_silence(
    monkeypatch: pytest.MonkeyPatch, watch: OomWatch
) -> None:
    log(monkeypatch, "usb 1-1: new device", at=60)
    assert watch.verdict(42, 50) == Oom("oom-own-limit", "counter")


def test_a_whole_log_that_names_only_others_speaks_against_the_counter(
    monkeypatch: pytest.MonkeyPatch, watch: OomWatch
) -> None:
    """The child was the victim, and somebody killed the main process before anybody looked."""
    log(monkeypatch, OWN, KILLED)
    lines = [(10.0, "Linux version 6.1"), *oom._records()]
    monkeypatch.setattr(oom, "_records", lambda: lines)
    assert watch.verdict(41, 50) is None


def test_what_was_counted_with_the_main_process_alive_was_another(
    monkeypatch: pytest.MonkeyPatch, watch: OomWatch
) -> None:
    log(monkeypatch)
    watch.look(os.getpid())
    assert watch.verdict(42, 50) is None


def test_a_look_at_a_dead_process_notes_nothing(monkeypatch: pytest.MonkeyPatch, watch: OomWatch) -> None:
    log(monkeypatch)
    watch.look(2**22 + 1)
    assert watch.verdict(42, 50) == Oom("oom-own-limit", "counter")


def test_where_nothing_was_killed_there_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log(monkeypatch, OWN, KILLED)
    (tmp_path / "memory.events").write_text("oom 3\noom_kill 0\n")
    assert OomWatch(str(tmp_path)).verdict(42, 50) is None


def test_a_log_that_ends_is_no_endless_one() -> None:
    """The kernel's never does, but /dev/null in its place does at once."""
    with open(os.devnull, "rb") as null:
        assert oom._read_records(null.fileno()) == []
