"""How canaries' ends are judged, by value. That they are started and ended is shown in the other tiers."""

import signal

import pytest

from swarmcg.bot import ExitReport, Leftovers
from swarmcg.doctor import selftest


def report(**facts: object) -> ExitReport:
    known: dict[str, object] = {"bot_id": "doctor-x", "incarnation": "1", "reason": "exited", **facts}
    return ExitReport(**known)  # type: ignore[arg-type]  # facts are of many types


PIDS = {"main": 1, "child": 2, "daemon": 3}
CLEAN = report(exit_code=0, leftovers=Leftovers(count=2))
KILLED = report(reason="killed-after-grace", signal=signal.SIGKILL, duration_s=1.2)
FULL = report(exit_code=0, limits={"pids.max": "16"})
COUNTED = {"memory.swap.max": "0"}
HUNGRY = report(reason="oom-own-limit", signal=signal.SIGKILL, reason_evidence="counter")


def test_all_three_processes_must_be_in_the_slice() -> None:
    assert selftest.judge_placed(PIDS, []).state == "ok"
    outside = selftest.judge_placed(PIDS, ["daemon"])
    assert (outside.state, "daemon" in outside.why) == ("fail", True)
    assert selftest.judge_placed({"main": 1}, []).state == "fail"


@pytest.mark.parametrize(
    ("seen", "alive", "state"),
    [
        (CLEAN, 0, "ok"),
        (CLEAN, 1, "fail"),
        (report(exit_code=0), 0, "fail"),
        (report(exit_code=1, leftovers=Leftovers(count=2)), 0, "fail"),
        (report(reason="signaled", signal=9, leftovers=Leftovers(count=2)), 0, "fail"),
    ],
)
def test_strays_must_be_dead_and_reported(seen: ExitReport, alive: int, state: str) -> None:
    assert selftest.judge_strays(seen, alive).state == state


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (KILLED, "ok"),
        (report(reason="killed-after-grace", signal=signal.SIGKILL, duration_s=0.2), "fail"),
        (report(reason="terminated", signal=signal.SIGTERM, duration_s=1.2), "fail"),
        (report(reason="exited", exit_code=0, duration_s=1.2), "fail"),
    ],
)
def test_who_ignores_sigterm_must_be_killed_and_not_before_its_grace_is_over(
    seen: ExitReport, state: str
) -> None:
    assert selftest.judge_deaf(seen).state == state


@pytest.mark.parametrize(
    ("forked", "seen", "state"),
    [(15, FULL, "ok"), (14, FULL, "fail"), (64, FULL, "fail"), (None, FULL, "fail"), (15, CLEAN, "fail")],
)
def test_the_fork_over_the_limit_must_be_refused(forked: int | None, seen: ExitReport, state: str) -> None:
    assert selftest.judge_forks(forked, seen).state == state


@pytest.mark.parametrize(
    ("eaten", "seen", "state"),
    [
        (40, HUNGRY, "ok"),
        (40, report(reason="oom-ancestor", signal=9), "fail"),
        (40, report(reason="signaled", signal=9), "fail"),
        (90, report(reason="oom-own-limit", signal=9, limits=COUNTED), "fail"),
        (128, report(exit_code=0, limits=COUNTED), "fail"),
        (128, report(exit_code=0, limits={"memory.max": "1"}), "warn"),
        (90, report(reason="oom-own-limit", signal=9, limits={"memory.max": "1"}), "warn"),
    ],
)
def test_who_eats_too_much_must_die_of_its_own_limit_and_not_later(
    eaten: int, seen: ExitReport, state: str
) -> None:
    assert selftest.judge_hungry(eaten << 20, seen).state == state
