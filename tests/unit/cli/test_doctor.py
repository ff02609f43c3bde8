"""How doctor's checks are told, and what its exit status says."""

import io
import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from swarmcg.cli import doctor
from swarmcg.cli.main import main
from swarmcg.doctor.check import Check, fail, ok, warn

CHECKS = [
    ok("python", "Python 3.11"),
    warn("controller.cpu", "not\x1b[2J offered", "echo +cpu"),
    warn("controller.io", "not offered", "echo +cpu"),
    fail("home", "nowhere", "mount it"),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Sequence[Check]:
    monkeypatch.setattr(doctor, "look", lambda home: home)
    monkeypatch.setattr(doctor, "judge", lambda seen: [] if seen else CHECKS)
    return CHECKS


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *, no_color: str) -> list[str]:
    monkeypatch.setenv("NO_COLOR", no_color)
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["doctor"]) == 1
    return screen.getvalue().splitlines()


@pytest.mark.usefixtures("told")
def test_json_is_a_list_of_checks_in_their_own_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"check": check.check, "state": check.state, "why": check.why, "remedy": check.remedy}
        for check in CHECKS
    ]


@pytest.mark.usefixtures("told")
def test_nothing_failed_is_an_exit_status_of_0() -> None:
    assert main(["doctor", "--home", "/x"]) == 0


@pytest.mark.usefixtures("told")
def test_a_program_gets_a_line_a_check_the_worst_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 1
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["STATE", "CHECK", "WHY", "REMEDY"]
    assert [line[0] for line in lines[1:]] == ["fail", "warn", "warn", "ok"]
    assert lines[2] == ["warn", "controller.cpu", "not\\x1b[2J offered", "echo +cpu"]


@pytest.mark.usefixtures("told")
def test_people_get_a_cure_below_what_it_cures(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_a_terminal(monkeypatch, no_color="1") == [
        "fail  home            nowhere",
        "                      -> mount it",
        "warn  controller.cpu  not\\x1b[2J offered",
        "warn  controller.io   not offered",
        "                      -> echo +cpu",
        "ok    python          Python 3.11",
        "4 checks: 1 fail, 2 warn, 1 ok",
    ]


@pytest.mark.usefixtures("told")
def test_colours_are_for_terminals_whose_user_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_a_terminal(monkeypatch, no_color="")[0] == "\x1b[1;31mfail\x1b[0m  home            nowhere"


@pytest.mark.usefixtures("told")
def test_a_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["doctor"]) == 1


ELSEWHERE = """
import importlib.abc, json, subprocess, sys, tempfile

class Nowhere(importlib.abc.MetaPathFinder):  # what the platform lacks
    def find_spec(self, name, path, target=None):
        if name in {"fcntl", "grp", "pwd", "resource", "termios"} or name.startswith("swarmcg.cgroup"):
            raise ModuleNotFoundError(name)

from importlib import metadata
sys.platform = sys.argv[1]
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Nowhere())
from swarmcg.cli.main import main
sys.exit(main(["doctor", "--json", "--self-test"]))
"""


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_it_says_what_that_means(platform: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, platform], check=False, capture_output=True, text=True
    )
    assert (done.stderr, done.returncode) == ("", 0)
    found = {check["check"]: check for check in json.loads(done.stdout)}
    assert {"python", "packages", "place.state", "place.runtime", "place.cache"} < found.keys()
    assert found["platform"]["why"].startswith(f"{platform} has no cgroups")
    assert (found["platform"]["state"], found["selftest.start"]["state"]) == ("warn", "warn")
