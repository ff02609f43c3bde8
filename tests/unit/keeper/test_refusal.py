"""Who refused a fork: told from what the files say."""

import resource

import pytest

from swarmcg.keeper import refusal
from swarmcg.keeper.refusal import fork_refused_by


def host(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], *, nproc: int = resource.RLIM_INFINITY
) -> None:
    monkeypatch.setattr(refusal, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(refusal, "_pids_cgroups", lambda: ["/cg/a/b", "/cg/a"])
    monkeypatch.setattr(resource, "getrlimit", lambda _: (nproc, nproc))


def test_the_nearest_full_ancestor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/cg/a/b/pids.max": "max",
        "/cg/a/b/pids.current": "7",
        "/cg/a/pids.max": "9",
        "/cg/a/pids.current": "9",
    }
    host(monkeypatch, files)
    cause, path = fork_refused_by()
    assert path == "/cg/a/pids.max"
    assert "9" in cause


def test_a_limit_that_is_not_reached_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, {"/cg/a/pids.max": "10", "/cg/a/pids.current": "9"}, nproc=77)
    cause, path = fork_refused_by()
    assert path is None
    assert "RLIMIT_NPROC allows 77" in cause


def test_what_remains_is_the_kernel_s_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, {})
    assert fork_refused_by()[1] == "/proc/sys/kernel/threads-max"


def test_on_this_host_it_finds_something_to_say() -> None:
    cause, _ = fork_refused_by()
    assert cause
