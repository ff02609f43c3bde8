"""The parts of scripts/test, in the order in which they run. Each is a function that says how it went."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import pytest

from checks import coverage_data, debian, machine, uml
from checks.vm import image, tier

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = ROOT / ".cache"
# What is checked for which platform: tests and scripts are for Linux, the package can be imported everywhere.
# Rooms for Linux alone end with a raise at their head elsewhere; all that follows it is unreachable there.
PLATFORMS: Final = {
    "linux": (),
    "darwin": ("--no-warn-unreachable", "src", "tests/typing"),
    "win32": ("--no-warn-unreachable", "src", "tests/typing"),
}
# User-mode-linux 6.12.113 panics when a fork is refused half-way in a storm of them (flush_tlb_mm below dup_mm).
LEFT_OUT: Final = {"trixie": ("-m", "not storms")}
# Guests and machines are slow enough without: measured, the kernel tier takes three times as long.
MEASURED: Final = ("unit", "host", "hostile")
# Each test has cgroups, a state directory and, where it needs one, a network of its own. Much of the time goes into
# waiting, for grace periods and for interpreters to start, so there are more of them than processors.
WORKERS: Final = (os.cpu_count() or 1) + 1
PARALLEL: Final = ("-n", str(WORKERS), "--dist", "loadgroup")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a part went, and why it did not run or what failed in it."""

    state: Literal["passed", "failed", "cannot run"]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asked for."""

    pytest_options: tuple[str, ...] = ()


PASSED: Final = Outcome("passed")


def in_ci() -> bool:
    """Whether a part that cannot run counts as failed."""
    return os.environ.get("CI") == "true"


def lint(_settings: Settings, _ran: frozenset[str]) -> Outcome:
    """Ruff's rules and format, shellcheck for the shell scripts, and whether the made part of the reference is
    up to date.
    """
    failed = [
        *_failures("ruff check", [sys.executable, "-m", "ruff", "check"]),
        *_failures("ruff format", [sys.executable, "-m", "ruff", "format", "--check"]),
        *_failures("reference", [str(ROOT / "scripts" / "reference"), "--check"]),
    ]
    if debian.provide("shellcheck", "shellcheck"):
        failed += _failures("shellcheck", ["shellcheck", *_shell_scripts()])
    elif in_ci():
        failed.append("shellcheck is missing")
    return _judged(failed)


def types(_settings: Settings, _ran: frozenset[str]) -> Outcome:
    """Mypy for each platform that the code is written for, at the same time, each with a cache of its own."""
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(_mypy, PLATFORMS))
    for platform, run in zip(PLATFORMS, runs, strict=True):
        print(f"{platform}: {run.stdout.strip()}", flush=True)
    return _judged([platform for platform, run in zip(PLATFORMS, runs, strict=True) if run.returncode])


def unit(settings: Settings, _ran: frozenset[str]) -> Outcome:
    """Tests that need neither root nor cgroups."""
    return _tier("unit", ["tests/unit"], settings)


def host(settings: Settings, _ran: frozenset[str]) -> Outcome:
    """Tests on this machine's own kernel, but for the hostile ones."""
    return _on_this_kernel("host", "not hostile", settings)


def hostile(settings: Settings, _ran: frozenset[str]) -> Outcome:
    """Bots that resist, attack or flood, and kills of our own processes at any point."""
    return _on_this_kernel("hostile", "hostile", settings)


def _on_this_kernel(name: str, marked: str, settings: Settings) -> Outcome:
    obstacle = machine.no_writable_cgroup2()
    if obstacle:
        return Outcome("cannot run", obstacle)
    return _tier(name, ["tests/host", "-m", marked], settings)


def kernel(settings: Settings, _ran: frozenset[str]) -> Outcome:
    """Tests that need a kernel of their own, with pure cgroup v2: on each of Debian's that can be had here.

    A guest has one processor, so they run at the same time.
    """
    suites: list[str] = []
    lacking: list[str] = []
    for suite in uml.SUITES:
        try:
            uml.find_kernel(suite)  # what is missing is installed by one process at a time
            suites.append(suite)
        except debian.UnavailableError as error:
            lacking.append(f"no kernel of {suite}: {error}")
    failed: list[str] = []
    with contextlib.ExitStack() as held:
        guests = {suite: held.enter_context(_guest(suite, settings)) for suite in suites}
        for suite in reversed(suites):
            if status := guests[suite]():
                failed.append(f"{suite} ended with {status}")
            if suite == suites[-1]:
                failed += _boots(settings)  # in the place that has become free
    if failed or not suites:
        return Outcome("failed" if failed else "cannot run", "; ".join(failed + lacking))
    return Outcome("failed" if lacking and in_ci() else "passed", "; ".join(lacking))


@contextlib.contextmanager
def _guest(suite: str, settings: Settings) -> Iterator[Callable[[], int]]:
    """The kernel tier in a guest of that suite, which ends with the block; what is given waits for it, shows what it
    said, and returns its exit status.
    """
    keep = CACHE / "uml" / suite
    tier = [*uml.KERNEL_TIER, *LEFT_OUT.get(suite, ()), *settings.pytest_options]
    bound = ["setpriv", "--pdeathsig", "TERM"]
    command = [*bound, sys.executable, "-m", "checks.uml", "--suite", suite, "--keep", str(keep), *tier]
    with tempfile.TemporaryFile() as said:
        guest = subprocess.Popen(command, cwd=ROOT / "scripts", stdout=said, stderr=subprocess.STDOUT)

        def finish() -> int:
            status = guest.wait()
            said.seek(0)
            print(said.read().decode(errors="replace"), flush=True)
            return status

        try:
            yield finish
        finally:
            guest.terminate()
            guest.wait()


def _boots(settings: Settings) -> list[str]:
    """Tests that start guests themselves: on kernels that are older, or started otherwise."""
    command = [sys.executable, "-m", "pytest", "tests/boots", *settings.pytest_options]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    return [] if status in {0, pytest.ExitCode.NO_TESTS_COLLECTED} else [f"tests/boots ended with {status}"]


def systemd(settings: Settings, _ran: frozenset[str]) -> Outcome:
    """The smoke selection of what needs systemd, cpuset, hugetlb, PSI or a disk that heeds weights; and Vagrant's."""
    if tier.MADE_FOR_TESTS.exists():
        return _judged(_failures("pytest", tier.command_here(settings.pytest_options)))
    failed: list[str] = []
    lacking: list[str] = []
    suites = tier.suites()
    for suite in suites:
        try:
            status = tier.run_in_machine(suite, settings.pytest_options)
        except debian.UnavailableError as error:
            lacking.append(f"no machine of {suite}: {error}")
        else:
            failed += [f"{suite} ended with {status}"] if status else []
    left_out = [f"{suite} left out with a cold cache" for suite in image.SUITES if suite not in suites]
    if not failed and len(lacking) == len(suites):
        return Outcome("cannot run", "; ".join(lacking))
    failed += _failures("machines", [sys.executable, "-m", "pytest", "tests/machines"])
    state: Literal["passed", "failed"] = "failed" if failed or (lacking and in_ci()) else "passed"
    return Outcome(state, "; ".join(failed + lacking + left_out))


def bench(_settings: Settings, _ran: frozenset[str]) -> Outcome:
    """The benchmarks run and print their figures; how fast a busy machine is fails nothing."""
    obstacle = machine.no_writable_cgroup2()
    command = [sys.executable, "-m", "benchmarks"]
    return Outcome("cannot run", obstacle) if obstacle else _judged(_failures("benchmarks", command))


def coverage(_settings: Settings, ran: frozenset[str]) -> Outcome:
    """The tiers' coverage put together, held against fail_under when all of them ran."""
    data, cut = coverage_data.whole(CACHE / "coverage" / tier for tier in MEASURED)
    if not data:
        return Outcome("cannot run", "no tier has left coverage data yet")
    everything = CACHE / "coverage" / "everything"
    coverage_data.name_all(ROOT / "src" / "swarmcg", everything)
    print(
        f"{len(data)} processes were measured, {cut} others were killed while they wrote what they had measured"
    )
    merged = {"COVERAGE_FILE": str(CACHE / "coverage" / "merged"), "CHECKOUT": str(ROOT)}
    tool = [sys.executable, "-m", "coverage"]
    failed = _failures(
        "combine", [*tool, "combine", "--quiet", "--keep", str(everything), *map(str, data)], merged
    )
    missing = [tier for tier in MEASURED if tier not in ran]
    threshold = ["--fail-under=0"] if missing else []
    failed += _failures("report", [*tool, "report", *threshold], merged)
    if missing and not failed:
        return Outcome(
            "passed", f"not held against fail_under: {', '.join(missing)} did not pass in this run"
        )
    return _judged(failed)


def _mypy(platform: str) -> subprocess.CompletedProcess[str]:
    cache = str(CACHE / "mypy" / platform)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--platform",
        platform,
        "--cache-dir",
        cache,
        *PLATFORMS[platform],
    ]
    return subprocess.run(
        command, cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _tier(name: str, selected: list[str], settings: Settings) -> Outcome:
    data = _fresh_data(name)
    pytest = [*("-m", "coverage", "run", "-m", "pytest"), *PARALLEL]
    command = [sys.executable, *pytest, *selected, *settings.pytest_options]
    return _judged(_failures("pytest", command, {"COVERAGE_FILE": str(data / "data"), "CHECKOUT": str(ROOT)}))


def _fresh_data(tier: str) -> Path:
    data = CACHE / "coverage" / tier
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    data.chmod(0o1777)  # some tests run the program as another user, whose data counts as well
    return data


def _shell_scripts() -> list[str]:
    places = (ROOT / ".ci", ROOT / "scripts", ROOT / "packaging")
    candidates = [path for place in places for path in place.rglob("*")]
    return [str(path) for path in candidates if path.is_file() and _is_shell(path)]


def _is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline()
    return first.startswith(b"#!") and first.split()[-1].endswith(b"sh")


def _failures(what: str, command: list[str], environment: dict[str, str] | None = None) -> list[str]:
    status = subprocess.run(command, cwd=ROOT, check=False, env=os.environ | (environment or {})).returncode
    return [f"{what} ended with {status}"] if status else []


def _judged(failed: list[str]) -> Outcome:
    return Outcome("failed", "; ".join(failed)) if failed else PASSED


PARTS: Final[dict[str, Callable[[Settings, frozenset[str]], Outcome]]] = {
    "lint": lint,
    "types": types,
    "unit": unit,
    "host": host,
    "kernel": kernel,
    "systemd": systemd,
    "hostile": hostile,
    "bench": bench,
    "coverage": coverage,
}
