"""Proves on this very host that limits and kill work: canaries are started as bots are, and what becomes of them is
judged.
"""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, NoReturn

import msgspec

from swarmcg.bot import ExitReport, Row
from swarmcg.doctor import canary
from swarmcg.doctor.check import Check, fail, ok, warn
from swarmcg.doctor.lab import GRACE_S, Lab
from swarmcg.errors import SwarmcgError, UnenforceableError

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["judge_deaf", "judge_forks", "judge_hungry", "judge_placed", "judge_strays", "self_test"]

# About two on an idle machine. A busy one, or an emulated processor, takes ten times as long.
_WITHIN_S: Final = 60.0
_PIDS: Final = 16
_MEMORY_BYTES: Final = 48 << 20
_DISPROVED: Final = (
    "Start no bots here before that is understood: run it again, and see the kernel's log (dmesg)."
)


class LateError(Exception):
    """The whole test took too long."""


def self_test(home: str | None = None) -> list[Check]:
    """What was proven, what was disproved, and what cannot be proven here.

    Takes at most a minute, and some more to end what was started. Raises KeyboardInterrupt or SystemExit for a
    signal, once nothing is left. For the main thread. Moves this process into a leaf of its own cgroup, if that was
    delegated.
    """
    checks: list[Check] = []
    lab = Lab(home)
    try:
        with _interruptible(), lab:
            for check, prove in _PROOFS.items():
                checks += _outcome(check, prove, lab)
            checks.append(_reported(lab))
    except LateError:
        checks.append(
            fail(
                "selftest.time",
                f"not done within {_WITHIN_S:.0f} s",
                "Run it again when the host is less busy.",
            )
        )
    except SwarmcgError as e:
        checks.append(_refused("selftest.start", e))
    except OSError as e:
        checks.append(
            fail("selftest.start", f"no canary can be started: {e}", "Mend that, and run it again.")
        )
    return checks + _gone(lab)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Signals and the end of our time raise in the block, wherever it waits."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = {number: signal.signal(number, _raise) for number in numbers}
    signal.setitimer(signal.ITIMER_REAL, _WITHIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    if number == signal.SIGALRM:
        raise LateError
    sys.exit(128 + number)


Prove = Callable[[Lab], Iterator[Check]]


def _outcome(check: str, prove: Prove, lab: Lab) -> list[Check]:
    """The checks of one proof. What cannot be limited here cannot be proven, and that is no failure."""
    try:
        return list(prove(lab))
    except UnenforceableError as e:
        row = msgspec.convert(e.value, list[Row])[0]
        return [warn(check, f"not proven: {row.why}", row.remedy)]
    except SwarmcgError as e:
        return [_refused(check, e)]
    except (OSError, ValueError) as e:
        return [fail(check, f"the canary could not be watched: {e}", _DISPROVED)]


def _refused(check: str, error: SwarmcgError) -> Check:
    return fail(check, f"{error.headline}: {error.reason}" if error.reason else error.headline, error.remedy)


def _strays(lab: Lab) -> Iterator[Check]:
    with lab.canary(canary.stray) as bird:
        told = bird.says() or {}
        pids = {"main": bird.bot.pid, **told}
        outside = [name for name, pid in pids.items() if not bird.in_slice(pid)]
        with _held(told.values()) as pidfds:
            report = bird.lets_go()
            alive = len(pidfds) - len(_dead(pidfds))
    yield judge_placed(pids, outside)
    yield judge_strays(report, alive)


@contextlib.contextmanager
def _held(pids: Any) -> Iterator[list[int]]:
    pidfds = [os.pidfd_open(pid) for pid in pids]
    try:
        yield pidfds
    finally:
        for fd in pidfds:
            os.close(fd)


def _dead(pidfds: list[int]) -> list[int]:
    poll = select.poll()
    for fd in pidfds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(0)]


def judge_placed(pids: dict[str, int], outside: list[str]) -> Check:
    """Every process of a canary must be in its slice: main, child, and the daemon that got away from its parents."""
    if outside or len(pids) < 3:  # noqa: PLR2004  these three
        seen = ", ".join(outside) or "child and daemon were not seen"
        return fail("selftest.placed", f"not in the slice: {seen}", _DISPROVED)
    return ok("selftest.placed", "main process, child and daemon were all in the slice")


def judge_strays(report: ExitReport, alive: int) -> Check:
    """When the main process ends by itself, what it leaves is killed, and counted."""
    if alive:
        return fail("selftest.strays", f"{alive} processes outlived their slice", _DISPROVED)
    if (report.reason, report.exit_code, report.leftovers.count) != ("exited", 0, 2):
        why = (
            f"child and daemon are gone, but reported as {_told(report)}, {report.leftovers.count} left over"
        )
        return fail("selftest.strays", why, _DISPROVED)
    return ok("selftest.strays", "child and daemon were killed when the main process had ended, and reported")


def _told(report: ExitReport) -> str:
    how = f"exit code {report.exit_code}" if report.signal is None else f"signal {report.signal}"
    return f"{report.reason} ({how})"


def _deaf(lab: Lab) -> Iterator[Check]:
    with lab.canary(canary.deaf) as bird:
        bird.says()
        bird.bot.terminate(GRACE_S)
        yield judge_deaf(bird.report())


def judge_deaf(report: ExitReport) -> Check:
    """Who ignores SIGTERM gets the whole grace period, and then the kill."""
    lasted = report.duration_s or 0
    if (report.reason, report.signal) != ("killed-after-grace", signal.SIGKILL) or lasted < GRACE_S:
        why = f"one that ignores SIGTERM ended after {lasted:.1f} s as {_told(report)}"
        return fail("selftest.sigterm", why, _DISPROVED)
    return ok(
        "selftest.sigterm", f"one that ignores SIGTERM was killed after its grace period of {GRACE_S:g} s"
    )


def _forks(lab: Lab) -> Iterator[Check]:
    with lab.canary(canary.forks, f'{{"pids": {{"limit": {_PIDS}}}}}') as bird:
        told = bird.says() or {}
        yield judge_forks(told.get("forked"), bird.lets_go())


def judge_forks(forked: int | None, report: ExitReport) -> Check:
    """The main process is one of those that the limit counts."""
    if forked != _PIDS - 1 or report.limits.get("pids.max") != str(_PIDS):
        why = f"with pids.max {report.limits.get('pids.max')}, asked for as {_PIDS}, it forked {forked} times"
        return fail("selftest.pids", why, _DISPROVED)
    return ok("selftest.pids", f"with pids.max {_PIDS} the {_PIDS}th fork was refused")


def _hungry(lab: Lab) -> Iterator[Check]:
    resources = f'{{"memory": {{"limit": {_MEMORY_BYTES}, "swap": {_MEMORY_BYTES}}}}}'
    with lab.canary(canary.eat, resources) as bird:
        eaten = 0
        while eaten < canary.MOST_BYTES and (told := bird.says()) is not None:
            eaten = told["eaten"]
        yield judge_hungry(eaten, bird.lets_go())


def judge_hungry(eaten: int, report: ExitReport) -> Check:
    """It must die of its own limit before it has used more than that, and the report must say so."""
    limit = f"with a limit of {_MEMORY_BYTES >> 20} MiB"
    if eaten > _MEMORY_BYTES and "memory.swap.max" not in report.limits:
        why = f"not proven: swap is not counted here, so that {limit} the canary used {eaten >> 20} MiB"
        return warn("selftest.memory", why, "swapoff -a, or boot with swapaccount=1.")
    if eaten > _MEMORY_BYTES or report.reason != "oom-own-limit":
        why = f"{limit} the canary used {eaten >> 20} MiB and ended as {_told(report)}"
        return fail("selftest.memory", why, _DISPROVED)
    evidence = f"oom-own-limit (evidence: {report.reason_evidence})"
    return ok("selftest.memory", f"{limit} the canary was killed after {eaten >> 20} MiB, as {evidence}")


def _reported(lab: Lab) -> Check:
    unreported = lab.unreported()
    if unreported or not lab.ended:
        why = f"no report of {', '.join(unreported) or 'any canary'} in the journal"
        return fail("selftest.reports", why, _DISPROVED)
    return ok("selftest.reports", f"all {len(lab.ended)} ends were reported in the journal")


def _gone(lab: Lab) -> list[Check]:
    """To be asked when the lab is closed."""
    if left := lab.left():
        return [fail("selftest.gone", f"still there: {', '.join(left)}", "swarmcg clean --yes")]
    return [ok("selftest.gone", f"all {len(lab.slices)} slices are removed")] if lab.slices else []


_PROOFS: Final[dict[str, Prove]] = {
    "selftest.strays": _strays,
    "selftest.sigterm": _deaf,
    "selftest.pids": _forks,
    "selftest.memory": _hungry,
}
