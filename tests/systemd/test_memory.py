"""Memory under pressure: swap, protection, and who is to blame for an out-of-memory kill."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from swarmcg.cgroup.names import is_slice_name
from tests.host.command import Command
from tests.systemd.machine import EAT, MB, PYTHON, only_report, resources, setting

EAT_AND_STAY: Final = EAT + "print('ready', flush=True)\nimport signal; signal.pause()"


@pytest.mark.full  # tests/kernel/test_limits.py shows swap, too
def test_what_goes_beyond_the_limit_goes_to_swap_as_far_as_that_is_allowed(
    home: Path, tmp_path: Path
) -> None:
    command = Command(home, tmp_path)
    roomy = command("run", "-m", "32m", "--memory-swap", "96m", "--", *PYTHON, EAT, "64")
    tight = command("run", "-m", "32m", "--memory-swap", "32m", "--", *PYTHON, EAT, "64")
    assert (roomy.returncode, tight.returncode) == (0, 128 + signal.SIGKILL)
    swapped, killed = command.reports()
    assert (swapped.reason, killed.reason) == ("exited", "oom-own-limit")
    assert swapped.limits["memory.swap.max"] == str(64 * MB)
    if (home / "memory.swap.peak").exists():  # since Linux 6.5
        assert (swapped.swap_peak_bytes or 0) > 24 * MB
    else:
        assert swapped.swap_peak_bytes is None


@pytest.mark.full
def test_a_reservation_that_systemd_does_not_grant_is_refused(home: Path, tmp_path: Path) -> None:
    done = Command(home, tmp_path)("run", "--memory-reservation", "16m", "--", "true")
    assert done.returncode == 125
    assert "MemoryLow=" in done.stderr


@pytest.mark.full  # tests/kernel/test_protection.py shows it, too
def test_a_reservation_protects_from_reclaim(top_home: Path, tmp_path: Path) -> None:
    """The directory between, which is swarmcg's own, has to grant what its slices ask for."""
    (top_home / "memory.low").write_text(str(48 * MB))
    bots = top_home / "bots"
    command = Command(bots, tmp_path)
    flags: dict[str, tuple[str, ...]] = {"protected": ("--memory-reservation", "48m"), "other": ()}
    with ExitStack() as stack:
        running = []
        for name, words in flags.items():
            call = command.running("run", "--id", name, *words, "--", *PYTHON, EAT_AND_STAY, "40")
            running.append(bot := stack.enter_context(call))
            assert bot.stdout is not None
            assert bot.stderr is not None
            assert bot.stdout.readline() == "ready\n", bot.stderr.read()
        assert (bots / "memory.low").read_text() == f"{48 * MB}\n"
        (top_home / "memory.reclaim").write_text(str(24 * MB))
        kept = {place.name.partition(".")[0]: memory(place) for place in slices(bots)}
        for bot in running:
            bot.terminate()
            bot.communicate(timeout=60)
    assert kept["protected"] > 40 * MB
    assert kept["other"] < 28 * MB


def memory(place: Path) -> int:
    return int((place / "memory.current").read_text())


def slices(home: Path) -> Iterator[Path]:
    return (entry for entry in home.iterdir() if entry.is_dir() and is_slice_name(entry.name))


@pytest.mark.full  # tests/kernel/test_oom.py shows it, too
def test_an_ancestor_over_its_limit_is_named_as_the_reason(home: Path, tmp_path: Path) -> None:
    above = home / "above"
    above.mkdir()
    (above / "memory.max").write_text(str(24 * MB))
    (above / "memory.swap.max").write_text("0")
    command = Command(above, tmp_path)
    done = command("run", "-m", "512m", "--", *PYTHON, EAT, "64")
    above.rmdir()
    assert done.returncode == 128 + signal.SIGKILL
    report = only_report(command)
    assert (report.reason, report.reason_evidence) == ("oom-ancestor", "kmsg")


@pytest.mark.full
def test_a_machine_without_memory_is_named_as_the_reason(home: Path, tmp_path: Path) -> None:
    """Most of the machine's memory is made huge pages first, which nobody can use in its stead."""
    command = Command(home, tmp_path)
    no_swap = resources(tmp_path, unified={"memory.swap.max": "0"})
    pages = int(available() - 300 * MB) // (2 * MB)
    assert pages > 0
    with setting(Path("/proc/sys/vm/nr_hugepages"), str(16 + pages), "16"):
        done = command("run", *no_swap, "--", *PYTHON, EAT, str(int(available() // MB) + 200))
    assert done.returncode == 128 + signal.SIGKILL
    report = only_report(command)
    assert (report.reason, report.reason_evidence) == ("oom-host", "kmsg")


def available() -> int:
    """Bytes that programs could get, by the kernel's own estimate."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
