"""What `swarmcg run` leaves when it is killed, `swarmcg clean` lists, ends, and finds no more."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.host.command import SOON_S, Command, ignoring, line

FOREVER = "while :; do sleep 1; done"
HEAD = ["ID", "INCARNATION", "PROCESSES", "AGE", "SLICE"]


@pytest.fixture
def swarmcg(home: Path, tmp_path: Path) -> Command:
    return Command(home, tmp_path)


def kill_run(swarmcg: Command, script: str, *flags: str, terminate: bool = False) -> None:
    """Kills `run` when its command has said a line; or when it has begun to end the command, and that said one."""
    with swarmcg.running("run", *flags, "--", "sh", "-c", script) as process:
        line(process.stdout)
        if terminate:
            process.terminate()
            line(process.stdout)
        process.kill()
        process.wait()


def test_nothing_is_found_where_nothing_is(swarmcg: Command) -> None:
    for words in ([], ["--yes"]):
        done = swarmcg("clean", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_home_that_is_not_there_is_no_home_without_slices(swarmcg: Command) -> None:
    done = swarmcg("clean", "--home", str(swarmcg.home / "none"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("swarmcg: There is no such home")
    assert not (swarmcg.home / "none").exists()


def test_listing_makes_nothing(swarmcg: Command) -> None:
    assert swarmcg("clean").returncode == 0
    assert list(swarmcg.state.iterdir()) == []


def test_what_a_killed_run_left_is_listed_ended_and_gone(swarmcg: Command) -> None:
    kill_run(swarmcg, f"echo ready; {FOREVER}", "--id", "left")
    (name,) = swarmcg.slices()
    for _ in range(2):  # listing changes nothing
        done = swarmcg("clean")
        head, row = (text.split("\t") for text in done.stdout.splitlines())
        assert done.returncode == 1
        assert head == HEAD
        assert (row[0], row[4]) == ("left", str(swarmcg.home / name))
        assert int(row[2]) >= 1
    done = swarmcg("clean", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split("\t")[4] == "removed"
    assert swarmcg.slices() == []
    assert [(r.bot_id, r.reason, r.exit_code) for r in swarmcg.reports()] == [("left", "unobserved", None)]
    assert swarmcg("clean").returncode == 0
    assert len(swarmcg.reports()) == 1


def test_what_resists_is_killed_when_the_grace_period_is_over(swarmcg: Command) -> None:
    kill_run(swarmcg, f"trap '' TERM; echo ready; {FOREVER}")
    done = swarmcg("clean", "--yes", "--grace", "0.1")
    assert done.returncode == 0
    (report,) = swarmcg.reports()
    assert report.leftovers.count >= 1


def test_a_run_that_is_killed_while_it_ends_its_command_is_finished(swarmcg: Command) -> None:
    kill_run(swarmcg, f"trap 'echo term' TERM; echo ready; {FOREVER}", terminate=True)
    assert swarmcg("clean").returncode == 1
    assert swarmcg("clean", "--yes", "--grace", "0").returncode == 0
    assert swarmcg.slices() == []


def test_a_signal_to_clean_ends_all_grace_periods(swarmcg: Command) -> None:
    kill_run(swarmcg, f"trap '' TERM; echo ready; {FOREVER}")
    (name,) = swarmcg.slices()
    with swarmcg.running("clean", "--yes", "--grace", "1h") as process:
        while swarmcg("clean").returncode:  # until the other one owns it; these looks hide nothing from it
            assert process.poll() is None
        process.terminate()
        assert process.wait(SOON_S) == 0
        assert name in line(process.stdout) + line(process.stdout)
    assert swarmcg.slices() == []


def test_a_hangup_that_the_caller_ignored_ends_no_grace_period(swarmcg: Command, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    kill_run(swarmcg, f"trap '' TERM; echo ready; until test -e {go}; do sleep 0.1; done; : > {done}")
    asked = [*ignoring("HUP"), *swarmcg.words("clean", "--yes", "--grace", "1h")]
    with subprocess.Popen(asked, env=swarmcg.env, stdout=subprocess.PIPE, text=True) as process:
        while swarmcg("clean").returncode:
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        go.touch()
        process.communicate(timeout=SOON_S)
    assert process.returncode == 0
    assert done.exists()


def test_a_run_that_lives_is_left_alone(swarmcg: Command) -> None:
    with swarmcg.running("run", "--", "sh", "-c", f"trap 'exit 5' TERM; echo ready; {FOREVER}") as process:
        line(process.stdout)
        assert swarmcg("clean").stdout == ""
        assert swarmcg("clean", "--yes", "--grace", "0").returncode == 0
        assert process.poll() is None
        process.terminate()
        assert process.wait(SOON_S) == 5


@pytest.mark.parametrize("after", [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4])
def test_killed_at_any_moment_of_its_start_it_leaves_nothing_that_clean_does_not_end(
    swarmcg: Command, after: float
) -> None:
    words = swarmcg.words("run", "--", "sh", "-c", "sleep 1000 & sleep 1000")
    subprocess.run(
        ["timeout", "-s", "KILL", str(after), *words], env=swarmcg.env, check=False, timeout=SOON_S
    )
    listed = swarmcg("clean")
    assert listed.returncode == int(bool(swarmcg.slices()))
    assert len(listed.stdout.splitlines()) == (1 + len(swarmcg.slices()) if swarmcg.slices() else 0)
    assert swarmcg("clean", "--yes", "--grace", "1").returncode == 0
    assert swarmcg.slices() == []
    assert swarmcg("clean").stdout == ""


@pytest.mark.parametrize(
    "words",
    [["--grace", "1"], ["--detached"], ["--nonsense"], ["--yes", "--grace", "x"], ["--yes", "--detached"]],
)
def test_a_wrong_call_is_one_error(swarmcg: Command, words: list[str]) -> None:
    done = swarmcg("clean", *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3
