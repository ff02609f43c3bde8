"""swarmcg-bots.service as systemd runs it."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.host.command import SWARMCG
from tests.host.engine import until
from tests.host.unit import Unit, lives
from tests.systemd.conftest import HIERARCHY
from tests.systemd.machine import EAT, MB, PYTHON, dying

CHECKOUT: Final = Path(__file__).parents[2]
NAME: Final = "swarmcg-bots.service"
FILE: Final = Path("/run/systemd/system") / NAME
CGROUP: Final = HIERARCHY / "system.slice" / NAME
PATIENT: Final = ("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done")
DEAF: Final = ("sh", "-c", "trap '' TERM; while :; do sleep 1000; done")
FOREVER: Final = ("sleep", "1000")
SOON_S: Final = 120.0
STARTS: Final = 20


def systemctl(*words: str) -> str:
    done = subprocess.run(["systemctl", *words], check=False, capture_output=True, text=True, timeout=SOON_S)
    assert done.returncode in {0, 3}, done.stderr  # 3: it is not active
    return done.stdout


def journal(*words: str) -> list[dict[str, str]]:
    call = ["journalctl", "--no-pager", "--output=json", *words]
    done = subprocess.run(call, check=True, capture_output=True, text=True, timeout=SOON_S)
    return [json.loads(line) for line in done.stdout.splitlines()]


class Service(Unit):
    """The unit, in the places that it has on a host."""

    def __init__(self, state: Path) -> None:
        super().__init__(CGROUP, state)
        self.env.update(
            SWARMCG_STATE_DIR=str(state), SWARMCG_RUNTIME_DIR="/run/swarmcg", SWARMCG_CACHE_DIR=str(state)
        )
        self.journal = state / "reports.jsonl"

    def end(self) -> str:
        systemctl("stop", NAME)
        return systemctl("show", NAME, "-p", "Result", "-p", "ActiveState", "--value")


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Service]:
    text = (CHECKOUT / "packaging" / "systemd" / NAME).read_text().replace("/usr/bin/swarmcg", SWARMCG)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text.replace("[Service]", f"[Service]\nEnvironment=SWARMCG_STATE_DIR={tmp_path}"))
    systemctl("daemon-reload")
    unit = Service(tmp_path)
    systemctl("start", NAME)
    yield unit
    systemctl("stop", NAME)
    FILE.unlink()
    systemctl("daemon-reload")


def test_a_stop_in_the_middle_of_a_ladder_leaves_nothing(unit: Service) -> None:
    unit.detach("patient", *PATIENT, flags=("-m", "32m"))
    deaf, place = unit.detach("deaf", *DEAF, flags=("--grace", "3"))
    unit.detach("plain", *FOREVER)
    names = systemctl("status", NAME, "--full", "--no-pager")
    assert all(f"{name}." in names for name in ("patient", "deaf", "plain"))
    with unit.running("clean", "--yes", "--detached", "deaf"):
        until(lambda: stopping(place))
        assert unit.end() == "success\ninactive\n"
    assert not lives(deaf)
    assert not CGROUP.exists()
    found = {name: (r.reason, r.exit_code, r.signal) for name, r in unit.reports().items()}
    assert found == {
        "patient": ("terminated", 5, None),
        "deaf": ("killed-after-grace", None, signal.SIGKILL),
        "plain": ("terminated", None, signal.SIGTERM),
    }
    assert unit.reports()["patient"].limits["memory.max"] == str(32 * MB)
    told = [entry["MESSAGE"] for entry in journal("-u", NAME)]
    assert not [text for text in told if "left" in text.lower() or "killing" in text.lower()]
    assert {entry["SWARMCG_BOT"] for entry in journal("SWARMCG_BOT=deaf")} == {"deaf"}
    assert any("killed-after-grace" in entry["MESSAGE"] for entry in journal("SWARMCG_BOT=deaf"))


def stopping(place: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(os.getxattr(place, "trusted.swarmcg.stopping"))
    return False


@pytest.mark.full
def test_a_killed_keeper_and_two_killed_processes(unit: Service) -> None:
    one, _ = unit.detach("one", *FOREVER)
    unit.kill("keeper")
    unit.wait_for("host", "keeper")
    assert lives(one)
    os.kill(one, signal.SIGTERM)
    assert unit.report("one").reason == "unobserved"
    two, _ = unit.detach("two", *FOREVER)
    for put_back in (lambda: unit("clean"), lambda: systemctl("reload", NAME)):
        unit.kill("host", "keeper")
        assert systemctl("is-active", NAME) == "active\n"
        put_back()
        assert {"host", "keeper"} == set(unit.processes())
        assert lives(two)
    assert unit.end() == "success\ninactive\n"
    assert unit.reports()["two"].reason == "unobserved"


@pytest.mark.full
def test_bots_and_limits_stay_through_what_administrators_do(unit: Service) -> None:
    one, place = unit.detach("one", *FOREVER, flags=("-m", "48m", "--pids-limit", "9"))
    eater = unit("run", "--id", "eater", "-m", "32m", "--memory-swap", "32m", "--", *PYTHON, EAT, "64")
    assert eater.returncode == 128 + signal.SIGKILL
    processes = unit.processes()
    systemctl("daemon-reload")
    systemctl("daemon-reexec")
    systemctl("set-property", "--runtime", "system.slice", "CPUWeight=50", "MemoryHigh=1900M")
    systemctl("set-property", "--runtime", NAME, "MemoryMax=1G", "TasksMax=500")
    FILE.write_text(FILE.read_text().replace("TimeoutStartSec=60s", "TimeoutStartSec=61s"))
    systemctl("daemon-reload")
    assert systemctl("is-active", NAME) == "active\n"
    assert (Path(place) / "memory.max").read_text() == f"{48 * MB}\n"
    assert (Path(place) / "pids.max").read_text() == "9\n"
    assert lives(one)
    assert unit.processes() == processes
    assert unit.reports()["eater"].reason == "oom-own-limit"
    for name in ("system.slice", NAME):
        shutil.rmtree(f"/run/systemd/system.control/{name}.d")
    systemctl("daemon-reload")
    assert unit.end() == "success\ninactive\n"
    assert unit.reports()["one"].reason == "terminated"


@pytest.mark.full
def test_a_bot_is_as_free_as_a_process_of_a_plain_shell(unit: Service) -> None:
    script = "cat /proc/self/status /proc/self/mountinfo /proc/self/oom_score_adj /proc/self/limits"
    unit.detach("one", "sh", "-c", f"{{ {script}; }} > /run/one.txt")
    assert unit.report("one").exit_code == 0
    plain = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True, cwd="/").stdout
    wanted = ("Cap", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups", "Sig", "Umask", "Cpus_allowed_list")
    found = Path("/run/one.txt").read_text()
    Path("/run/one.txt").unlink()
    assert chosen(found, wanted) == chosen(plain, wanted)
    assert mounts(found) == mounts(plain)
    assert found.splitlines()[len(found[: found.index("Limit ")].splitlines()) - 1] == "0"  # oom_score_adj


def chosen(text: str, names: tuple[str, ...]) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(names)]


def mounts(text: str) -> set[str]:
    return {line.split(" - ")[0].split()[4] for line in text.splitlines() if " - " in line}


@pytest.mark.long
def test_after_many_starts_and_stops_nothing_is_left(unit: Service) -> None:
    before = None
    for number in range(STARTS):
        systemctl("start", NAME)
        unit.detach(f"bot-{number}", *FOREVER, flags=("-m", "32m"))
        assert unit.end() == "success\ninactive\n"
        assert not CGROUP.exists()
        if number == 2:  # what is loaded and cached once is there by now
            before = dying()
    assert before is not None
    print(
        f"{STARTS} starts and stops of {NAME}: dying cgroups {before} after the third, {dying()} at the end"
    )
    until(lambda: dying() <= before + 8)
    assert len(unit.reports()) == STARTS


@pytest.mark.full
def test_a_user_s_own_unit_serves_that_user() -> None:
    units = Path("/home/lab/.config/systemd/user")
    text = (CHECKOUT / "packaging" / "systemd" / NAME).read_text().replace("/usr/bin/swarmcg", SWARMCG)
    lab("mkdir", "-p", str(units))
    (units / NAME).write_text(text)
    try:
        lab("sh", "-ec", f"systemctl --user daemon-reload; systemctl --user start {NAME}")
        told = lab(SWARMCG, "run", "--detach", "--id", "mine", "-m", "32m", "--", *FOREVER)
        _, pid, place = told.splitlines()[1].split("\t")
        assert f"/app.slice/{NAME}/bots/mine." in place
        assert lives(int(pid))
        assert (Path(place) / "memory.max").read_text() == f"{32 * MB}\n"
        assert lab(SWARMCG, "run", "--", "echo", "foreground") == "foreground\n"
        lab("systemctl", "--user", "stop", NAME)
        assert not lives(int(pid))
        assert lab("systemctl", "--user", "show", NAME, "-p", "Result", "--value") == "success\n"
    finally:
        lab("sh", "-c", f"systemctl --user stop {NAME}; rm {units / NAME}; systemctl --user daemon-reload")


def lab(*words: str) -> str:
    done = subprocess.run(
        ["runuser", "-l", "lab", "-c", shlex.join(words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=SOON_S,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout
