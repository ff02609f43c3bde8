"""What a keeper tells of a failed start, in words for who must act."""

import errno
from typing import Any

import pytest

from swarmcg.keeper.spawn import Order
from swarmcg.supervisor.failures import start_error

ORDER = Order(["/opt/bot", "x"], {}, procs=-1, cwd="/work")


def told(step: str, number: int | None, **more: Any) -> dict[str, Any]:
    return {"step": step, "errno": number, "cause": None, "path": None} | more


@pytest.mark.parametrize(
    ("step", "number", "path", "cure"),
    [
        ("exec", errno.ENOENT, "/opt/bot", "PATH"),
        ("exec", errno.EACCES, "/opt/bot", "chmod"),
        ("exec", errno.ENOEXEC, "/opt/bot", "#!"),
        ("exec", errno.E2BIG, "/opt/bot", "Shorten"),
        ("chdir", errno.ENOENT, "/work", "directory"),
        ("join", errno.EOPNOTSUPP, "/opt/bot", "domain cgroup"),
    ],
)
def test_the_subject_and_the_cure_fit_the_step(step: str, number: int, path: str, cure: str) -> None:
    error = start_error(told(step, number), ORDER)
    assert (error.step, error.errno, error.path) == (step, number, path)
    assert cure in (error.remedy or "")


def test_who_refused_a_fork_is_named() -> None:
    error = start_error(told("fork", errno.EAGAIN, path="/cg/pids.max", cause="full"), ORDER)
    assert (error.path, error.cause) == ("/cg/pids.max", "full")
    assert error.remedy


def test_an_errno_of_0_is_none() -> None:
    assert start_error(told("killed before exec", 0, cause="by signal 9"), ORDER).errno is None


def test_a_limit_that_is_too_small_for_any_program_is_named() -> None:
    event = told("killed before exec", 0, cause="it was ended by signal 9")
    error = start_error(event, ORDER, oom="oom-own-limit", memory_max="0")
    assert error.headline == (
        "The command could not be started: it was killed before its program was executed (/opt/bot)"
    )
    assert error.cause == "memory.max 0 is too small to start a program"
    assert "1m" in (error.remedy or "")
    above = start_error(event, ORDER, oom="oom-ancestor", memory_max="0")
    assert "not by its own limit" in (above.cause or "")
    assert start_error(event, ORDER).cause == "it was ended by signal 9"
