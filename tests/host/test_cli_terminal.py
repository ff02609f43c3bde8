"""`swarmcg run` in a terminal behaves as its command would."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.command import Command, Terminal

CTRL_C, CTRL_D, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x04", "\x1a", "\x1c"
READY = "echo $((6 * 7))"  # what it prints is not what was typed, which the terminal shows as well

COUNT = """
import signal, sys
seen = []
def count(*_):
    seen.append(1)
    print("got", len(seen), flush=True)
    if len(seen) == 4:
        sys.exit(7)
signal.signal(signal.SIGINT, count)
print(6 * 7, flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def swarmcg(home: Path, tmp_path: Path) -> Command:
    return Command(home, tmp_path)


@pytest.fixture
def shell(swarmcg: Command) -> Iterator[Terminal]:
    """An interactive bash in which $RUN is `swarmcg run`."""
    env = {**swarmcg.env, "PS1": "OUTER> ", "RUN": " ".join(swarmcg.words("run")), "HISTFILE": "/dev/null"}
    with Terminal(["bash", "--norc", "--noediting", "-i"], env) as terminal:
        terminal.expect("OUTER> ")
        yield terminal


def run(swarmcg: Command, *words: str, **env: str) -> Terminal:
    return Terminal(swarmcg.words("run", *words), {**swarmcg.env, **env})


def leave(shell: Terminal) -> None:
    shell.type("exit\n")
    shell.ends()


def test_ctrl_c_ends_what_does_not_mind_it(swarmcg: Command) -> None:
    with run(swarmcg, "--", "sh", "-c", f"{READY}; exec sleep 60") as terminal:
        terminal.expect("42")
        terminal.type(CTRL_C)
        assert terminal.ends() == 130
    assert [(r.reason, r.signal) for r in swarmcg.reports()] == [("signaled", 2)]
    assert swarmcg.slices() == []


def test_ctrl_backslash_is_left_to_the_command(swarmcg: Command) -> None:
    with run(
        swarmcg, "--", "bash", "-c", f"trap 'exit 9' QUIT; {READY}; while :; do sleep 1; done"
    ) as terminal:
        terminal.expect("42")
        terminal.type(CTRL_BACKSLASH)
        assert terminal.ends() == 9
    assert swarmcg.reports()[0].reason == "exited"


def test_ctrl_c_is_left_to_the_command_however_often_it_comes(swarmcg: Command) -> None:
    # Not a shell: bash drops a Ctrl-C that hits while its child is not quite there yet.
    with run(swarmcg, "--", sys.executable, "-S", "-c", COUNT) as terminal:
        terminal.expect("42")
        for n in range(1, 5):
            terminal.type(CTRL_C)
            terminal.expect(f"got {n}")
        assert terminal.ends() == 7
    assert swarmcg.reports()[0].reason == "exited"


def test_a_shell_has_job_control(swarmcg: Command) -> None:
    with run(swarmcg, "--", "bash", "--norc", "--noediting", "-i", PS1="INNER> ", HISTFILE="") as terminal:
        terminal.expect("INNER> ")
        terminal.type("sleep 1000 &\n")
        terminal.expect(r"\[1\] \d+")
        terminal.type("jobs\n")
        terminal.expect(r"\[1\]\+  Running +sleep 1000 &")
        terminal.type(f"sh -c '{READY}; exec cat'\n")
        terminal.expect("42")
        terminal.type(CTRL_Z)
        terminal.expect(r"\[2\]\+  Stopped .*exec cat'\r\n")
        terminal.expect("INNER> ")
        terminal.type("fg\n")
        terminal.expect("exec cat'")
        terminal.type("again\n")
        terminal.expect("again\r\nagain")
        terminal.type(CTRL_C)
        terminal.expect("INNER> $")
        terminal.type("kill %1; exit 5\n")
        assert terminal.ends() == 5
    assert swarmcg.slices() == []


def test_ctrl_z_and_fg_work_on_run_itself(shell: Terminal) -> None:
    shell.type(f"$RUN -- sh -c '{READY}; exec cat'\n")
    shell.expect("42")
    shell.type(CTRL_Z)
    shell.expect(r"Stopped .*exec cat'\r\n")
    shell.expect("OUTER> ")
    shell.type("fg\n")
    shell.expect("exec cat'")
    shell.type("again\n")
    shell.expect("again\r\nagain")
    shell.type(CTRL_D)
    shell.expect("OUTER> ")
    shell.type("echo status $?\n")
    shell.expect("status 0")
    leave(shell)


def test_a_command_that_stops_itself_stops_run_as_well(shell: Terminal) -> None:
    shell.type(f"$RUN -- sh -c 'kill -STOP $$; {READY}'\n")
    shell.expect("Stopped")
    shell.expect("OUTER> ")
    shell.type("fg\n")
    shell.expect("42")
    shell.expect("OUTER> ")
    leave(shell)


def test_a_shell_that_suspends_itself_gets_the_terminal_back(shell: Terminal) -> None:
    shell.type("PS1='INNER> ' $RUN -- bash --norc --noediting -i\n")
    shell.expect("INNER> $")
    shell.type("suspend\n")
    shell.expect("Stopped")
    shell.expect("OUTER> ")
    shell.type("fg\n")
    shell.expect("-i\r\n")
    shell.type(f"{READY}\n")
    shell.expect("42")
    shell.type("exit 3\n")
    shell.expect("OUTER> ")
    shell.type("echo status $?\n")
    shell.expect("status 3")
    leave(shell)


def test_run_in_the_background_goes_on_and_is_waited_for(shell: Terminal) -> None:
    shell.type("$RUN -- sh -c 'exit 3' & wait $!; echo status $?\n")
    shell.expect("status 3")
    leave(shell)


def test_a_closed_terminal_ends_the_slice(swarmcg: Command) -> None:
    terminal = run(swarmcg, "--", "sh", "-c", f"trap '' HUP; sleep 1000 & {READY}; wait")
    with terminal:
        terminal.expect("42")
        terminal.close()
        assert terminal.program.wait(30) == 143
    assert swarmcg.reports()[0].reason == "terminated"
    assert swarmcg.slices() == []


def test_with_the_terminal_ignored_by_nohup_it_goes_on(swarmcg: Command, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"{READY}; read line < {fifo}; echo $line > {tmp_path}/out"
    env = {**swarmcg.env}
    with Terminal(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *swarmcg.words("run", "--", "sh", "-c", script)], env
    ) as t:
        t.expect("42")
        t.close()
        fifo.write_text("went on\n")
        assert t.program.wait(30) == 0
    assert (tmp_path / "out").read_text() == "went on\n"
