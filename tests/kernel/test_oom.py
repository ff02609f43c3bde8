"""Four ends by SIGKILL or with status 137 that look alike, told apart by evidence."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from swarmcg.resources import LinuxResources
from tests.host.command import Command
from tests.host.engine import SOON_S, Engine, facts, until

# The installation's own interpreter: while coverage is measured, sys.executable is a script that brings coverage along,
# and with it more memory than the limits here allow.
PYTHON: Final = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
MB: Final = 1 << 20
EAT: Final = "b = bytearray(b'x') * (64 << 20)"
TIGHT: Final = LinuxResources.from_json(f'{{"memory": {{"limit": {24 * MB}, "swap": {24 * MB}}}}}')
CHILD_DIES: Final = f"""
import os, signal, subprocess, sys
child = subprocess.run([sys.executable, "-I", "-S", "-c", {EAT!r}])
assert child.returncode == -9, child
print("ready", flush=True)
signal.pause()
"""
# Time for the supervisor to see the counter while the main process lives: without the log nothing else tells.
CHILD_DIED_BEFORE: Final = CHILD_DIES.replace("print(", "__import__('time').sleep(1); print(")
WITHOUT_LOG: Final = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.host.engine import Engine, SOON_S
from tests.kernel.test_oom import PYTHON, TIGHT
with Engine({home!r}, Path({state!r})) as engine:
    bot = engine.start(PYTHON, "-I", "-S", "-c", {program!r}, resources=TIGHT, ready={ready})
    if {ready}:
        import os
        os.kill(bot.pid, 9)
    print(bot.wait(SOON_S).to_json().decode())
"""


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


def test_the_main_process_over_its_own_limit(engine: Engine) -> None:
    report = engine.start(PYTHON, "-I", "-S", "-c", EAT, resources=TIGHT).wait(SOON_S)
    assert (report.reason, report.reason_evidence) == ("oom-own-limit", "kmsg")
    assert (report.signal, report.exit_code) == (signal.SIGKILL, None)
    assert report.oom_kills is not None
    assert report.oom_kills >= 1


def test_a_child_over_the_limit_and_a_main_process_killed_by_hand(engine: Engine) -> None:
    bot = engine.start(PYTHON, "-I", "-S", "-c", CHILD_DIES, resources=TIGHT, ready=True)
    os.kill(bot.pid, signal.SIGKILL)
    report = bot.wait(SOON_S)
    assert (report.reason, report.reason_evidence, report.signal) == ("signaled", "none", signal.SIGKILL)
    assert report.oom_kills == 1


def test_the_command_line_tells_what_status_137_does_not(home: Path, tmp_path: Path) -> None:
    limits = ("-m", "24m", "--memory-swap", "24m")
    done = Command(home, tmp_path)("run", *limits, "--", PYTHON, "-I", "-S", "-c", EAT)
    assert done.returncode == 137
    assert done.stderr == f"swarmcg: memory limit {24 * MB}: killed for want of memory (oom-own-limit)\n"


def test_a_limit_in_which_no_program_can_start_is_named(home: Path, tmp_path: Path) -> None:
    done = Command(home, tmp_path)("run", "-m", "1k", "--", "true")
    what, why, cure = done.stderr.splitlines()
    assert done.returncode == 125
    assert what == (
        "swarmcg: The command could not be started: it was killed before its program was executed (true)"
    )
    assert why == "memory.max 0 is too small to start a program"
    assert "-m 1m" in cure
    assert [path for path in home.iterdir() if path.is_dir()] == []


def test_a_kill_from_outside(engine: Engine) -> None:
    bot = engine.start("sleep", "1000", resources=TIGHT)
    os.kill(bot.pid, signal.SIGKILL)
    report = bot.wait(SOON_S)
    assert (report.reason, report.reason_evidence, report.oom_kills) == ("signaled", "none", 0)


def test_an_exit_status_of_137(engine: Engine) -> None:
    report = engine.start("/bin/sh", "-c", "exit 137", resources=TIGHT).wait(SOON_S)
    assert (report.reason, report.exit_code, report.signal) == ("exited", 137, None)


def test_a_child_over_the_limit_that_the_main_process_outlives(engine: Engine) -> None:
    program = CHILD_DIES.replace('print("ready", flush=True)', "").replace("signal.pause()", "sys.exit(137)")
    report = engine.start(PYTHON, "-I", "-S", "-c", program, resources=TIGHT).wait(SOON_S)
    assert (report.reason, report.exit_code, report.oom_kills) == ("exited", 137, 1)


def test_the_limit_of_an_ancestor(home: Path, tmp_path: Path) -> None:
    above = home / "above"
    above.mkdir()
    (above / "memory.max").write_text(str(24 * MB))
    (above / "memory.swap.max").write_text("0")
    with Engine(above, tmp_path) as engine:
        roomy = LinuxResources.from_json(f'{{"memory": {{"limit": {512 * MB}}}}}')
        report = engine.start(PYTHON, "-I", "-S", "-c", EAT, resources=roomy).wait(SOON_S)
    above.rmdir()
    assert (report.reason, report.reason_evidence) == ("oom-ancestor", "kmsg")


def test_a_limit_that_the_bot_set_below_itself_is_its_own(engine: Engine) -> None:
    inner = f"""
import os
own = "/sys/fs/cgroup" + open("/proc/self/cgroup").read().split(":")[2].strip()
os.mkdir(own + "/leaf")
open(own + "/leaf/cgroup.procs", "w").write("0")
open(os.path.dirname(own) + "/cgroup.subtree_control", "w").write("+memory")
open(own + "/cgroup.subtree_control", "w").write("+memory")
open(own + "/leaf/memory.max", "w").write(str(24 << 20))
open(own + "/leaf/memory.swap.max", "w").write("0")
{EAT}
"""
    report = engine.start(PYTHON, "-I", "-S", "-c", inner).wait(SOON_S)
    assert report.reason == "oom-own-limit"


@pytest.mark.parametrize(
    ("program", "ready", "verdict"),
    [(EAT, False, ("oom-own-limit", "counter", 9)), (CHILD_DIED_BEFORE, True, ("signaled", "none", 9))],
    ids=["main process", "child, then kill -9"],
)
def test_without_the_kernel_log_the_counter_is_the_evidence(
    home: Path, tmp_path: Path, program: str, ready: bool, verdict: tuple[str, str, int]
) -> None:
    root = str(Path(__file__).parents[2])
    script = WITHOUT_LOG.format(root=root, home=str(home), state=str(tmp_path), program=program, ready=ready)
    hidden = 'mount --bind /dev/null /dev/kmsg; exec "$@"'
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "/bin/sh",
        "-ec",
        hidden,
        "sh",
        sys.executable,
        "-c",
        script,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report = facts(done.stdout)
    assert (report["reason"], report["reason_evidence"], report["signal"]) == verdict
    assert report["oom_kills"] == 1


def test_termination_by_us_is_never_taken_for_an_oom_kill(engine: Engine) -> None:
    bot = engine.start(
        PYTHON,
        "-I",
        "-S",
        "-c",
        CHILD_DIES.replace("print(", "signal.signal(15, signal.SIG_IGN); print("),
        resources=TIGHT,
        ready=True,
    )
    bot.terminate_or_kill(0.1)
    report = bot.wait()
    assert (report.reason, report.oom_kills) == ("killed-after-grace", 1)


def test_oom_of_the_whole_group_names_the_main_process(engine: Engine) -> None:
    group = LinuxResources.from_json(
        f'{{"memory": {{"limit": {24 * MB}, "swap": {24 * MB}}}, "unified": {{"memory.oom.group": "1"}}}}'
    )
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', {EAT!r}])"
    bot = engine.start(PYTHON, "-I", "-S", "-c", program, resources=group)
    report = bot.wait(SOON_S)
    assert report.reason == "oom-own-limit"
    until(engine.reports)
