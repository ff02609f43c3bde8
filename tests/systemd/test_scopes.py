"""Scopes that are asked of systemd, by root and by an ordinary user: what they give, and that nothing stays of them."""

import contextlib
import json
import os
import pwd
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from swarmcg.bot import ExitReport
from tests.host.command import SWARMCG
from tests.host.engine import until
from tests.systemd.conftest import HIERARCHY
from tests.systemd.machine import EAT, MB, PYTHON, dying

LAB: Final = pwd.getpwnam("lab").pw_uid if "SWARMCG_TEST_VM" in os.environ else 0
MANAGER: Final = HIERARCHY / f"user.slice/user-{LAB}.slice/user@{LAB}.service"
SYSTEM: Final = HIERARCHY / "system.slice"
DROP_IN: Final = Path("/etc/systemd/system/user@.service.d/delegate.conf")
CHECKOUT: Final = Path(__file__).parents[2]
SOON_S: Final = 120.0
CYCLES: Final = 200
FOREVER: Final = "echo ready; exec sleep 1000"
CYCLE: Final = """
import os, sys
from swarmcg.cli import run
for _ in range(int(sys.argv[1])):
    if not (pid := os.fork()):
        os._exit(run.main(["-m", "16m", "--pids-limit", "10", "--", "true"]))
    assert os.waitpid(pid, 0)[1] == 0
"""
APART: Final = f"""
import json, os, sys
sys.path.insert(0, {str(CHECKOUT)!r})
from swarmcg.supervisor.client import Connection
from swarmcg.supervisor.launch import Launch
from swarmcg.resources import LinuxResources
before = open("/proc/self/cgroup").read()
connection = Connection(None, sys.argv[1])
limits = LinuxResources.from_json('{{"memory": {{"limit": 33554432}}}}')
null = os.open("/dev/null", os.O_RDWR)
bot = connection.reserve().start(
    Launch(bot_id="apart", resources=limits),
    ["sleep", "1000"],
    {{"PATH": os.environ["PATH"]}},
    cwd="/",
    stdio=(null, null, null),
)
limit = open(bot.slice + "/memory.max").read().strip()
bot.terminate_or_kill()
report = bot.wait()
connection.close()
moved = open("/proc/self/cgroup").read() != before
told = {{"slice": bot.slice, "limit": limit, "reason": report.reason, "signal": report.signal, "moved": moved}}
print(json.dumps(told))
"""


def as_lab(*words: str) -> list[str]:
    """The words as the ordinary user would say them after a login."""
    return ["runuser", "-l", "lab", "-c", shlex.join(words)]


def said(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=SOON_S, **options)


@contextlib.contextmanager
def running(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on, from when its bot is ready. A test that fails meanwhile need not wait for it."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.terminate()  # runuser hands it on


def lab_report() -> ExitReport:
    text = Path("/home/lab/.local/state/swarmcg/reports.jsonl").read_bytes()
    return ExitReport.from_json(text.splitlines()[-1])


def scopes(place: Path) -> list[str]:
    return sorted(path.name for path in place.glob("swarmcg-*.scope"))


def units(*manager: str) -> str:
    return said(["systemctl", *manager, "list-units", "--all", "--no-legend", "swarmcg-*.scope"]).stdout


@pytest.fixture(autouse=True)
def bystander(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing of what a test does here stays, or ends the user's manager unless that is its point."""
    before = manager_pid()
    yield
    until(lambda: not units() and not scopes(SYSTEM) and not scopes(MANAGER / "app.slice"))
    if "drop_in" not in request.node.name:
        assert manager_pid() == before


def manager_pid() -> str:
    return said(["systemctl", "show", "-p", "MainPID", f"user@{LAB}.service"]).stdout


def test_an_ordinary_user_s_bot_is_killed_by_its_own_limit_and_others_live_on() -> None:
    with running(as_lab(SWARMCG, "run", "--id", "other", "-m", "64m", "--", "sh", "-c", FOREVER)) as living:
        eater = as_lab(
            SWARMCG, "run", "--id", "eater", "-m", "32m", "--memory-swap", "32m", "--", *PYTHON, EAT, "64"
        )
        done = said(eater)
        assert (done.returncode, done.stdout) == (128 + signal.SIGKILL, "")
        assert done.stderr == f"swarmcg: memory limit {32 * MB}: killed for want of memory (oom-own-limit)\n"
        report = lab_report()
        assert (report.bot_id, report.reason) == ("eater", "oom-own-limit")
        assert report.limits["memory.max"] == str(32 * MB)
        assert living.poll() is None
        assert len(scopes(MANAGER / "app.slice")) == 1
        assert said(["systemctl", "is-active", f"user@{LAB}.service"]).stdout == "active\n"
        said(["pkill", "-TERM", "-u", "lab", "-f", "run --id other"])
        assert living.wait(SOON_S) == 128 + signal.SIGTERM


def test_root_s_command_runs_in_a_delegated_scope_of_its_own() -> None:
    script = "cat /proc/self/cgroup; cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/../memory.max"
    done = said([SWARMCG, "run", "-m", "64m", "--cpuset-cpus", "0", "--", "sh", "-c", script])
    where, limit = done.stdout.split()
    assert where.startswith("0::/system.slice/swarmcg-")
    assert (done.returncode, done.stderr, limit) == (0, "", str(64 * MB))


@pytest.mark.full
def test_an_ordinary_user_is_refused_what_was_not_delegated_and_the_drop_in_cures_it() -> None:
    asked = as_lab(SWARMCG, "run", "--cpuset-cpus", "0", "--", "true")
    done = said(asked)
    what, _, cure = done.stderr.splitlines()
    assert done.returncode == 125
    assert what == "swarmcg: cpu.cpus cannot be enforced on this host (cpuset.cpus)"
    command = cure.removeprefix("As root: ").partition(" (this ends")[0]
    try:
        assert said(["sh", "-ec", command]).returncode == 0
        assert DROP_IN.read_text() == "[Service]\nDelegate=cpu cpuset io memory pids\n"
        assert said(asked).returncode == 0
    finally:
        DROP_IN.unlink(missing_ok=True)
        said(["sh", "-ec", f"systemctl daemon-reload; systemctl restart user@{LAB}"])


@pytest.mark.full
def test_explain_knows_what_a_scope_will_give(scratch_disk: Path) -> None:
    words = (
        SWARMCG,
        "explain",
        "--json",
        "-m",
        "64m",
        "--cpuset-cpus",
        "0",
        "--device-read-bps",
        f"{scratch_disk}:1m",
    )
    for user, lacking in ((as_lab(*words), {"cpuset.cpus", "io.max"}), (list(words), set())):
        rows = json.loads(said(user).stdout)
        assert {row["file"] for row in rows if not row["enforceable"]} == lacking


@pytest.mark.full
@pytest.mark.parametrize("user", ["root", "lab"])
def test_of_a_program_only_the_helpers_go_into_the_scope(user: str) -> None:
    words = [sys.executable, "-c", APART, f"/tmp/apart-{user}/reports.jsonl"]
    done = said(as_lab(*words) if user == "lab" else words)
    found = json.loads(done.stdout)
    slice_ = found.pop("slice")
    assert found == {"limit": str(32 * MB), "reason": "terminated", "signal": signal.SIGTERM, "moved": False}
    assert slice_.startswith(str(MANAGER / "app.slice" if user == "lab" else SYSTEM))


@pytest.mark.full
def test_what_a_killed_run_left_in_its_scope_is_found_and_ended() -> None:
    with running([SWARMCG, "run", "--id", "left", "--", "sh", "-c", FOREVER]) as run:
        run.kill()
    assert len(scopes(SYSTEM)) == 1
    assert said([SWARMCG, "clean"]).returncode == 1
    done = said([SWARMCG, "clean", "--yes", "--grace", "1"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "left" in done.stdout


@pytest.mark.long
def test_after_200_scopes_nothing_is_left_of_them() -> None:
    cycle(10)  # what is loaded and cached once is there now
    before = state()
    cycle(CYCLES)
    after = until(lambda: found if (found := state())["dying"] <= before["dying"] + 8 else None)
    print(f"{CYCLES} scopes: before {before}, after {after}")
    assert after["scopes"] == 0
    assert {name: count for name, count in after.items() if count > before[name]}.keys() <= {"dying"}


def cycle(times: int) -> None:
    """Without coverage: each of the children would write a data file of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    subprocess.run([sys.executable, "-c", CYCLE, str(times)], check=True, timeout=1200, env=env)


def state() -> dict[str, int]:
    """Units, cgroups, connections to systemd and the bus, and cgroups that are gone but not forgotten."""
    sockets = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()]
    counts = dict(line.split() for line in (HIERARCHY / "cgroup.stat").read_text().splitlines())
    return {
        "scopes": len(units().splitlines()),
        "cgroups": int(counts["nr_descendants"]),
        "dying": dying(),
        "private": sockets.count("/run/systemd/private"),
        "bus": sockets.count("/run/dbus/system_bus_socket"),
    }
