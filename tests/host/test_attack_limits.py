"""What must not end a supervisor, or keep it or its keeper busy: descriptors that run out, monsters, and tracers."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from swarmcg.errors import StartError, SwarmcgError, WaitTimeout
from swarmcg.supervisor.launch import Launch
from tests.host.engine import Engine, read_line, until

pytestmark = pytest.mark.hostile

TRACED = """
import ctypes, os, time
hear, tell = os.pipe()
main = os.getpid()
if os.fork() == 0:
    PTRACE_SEIZE = 0x4206
    os.write(tell, b"%d" % ctypes.CDLL(None).ptrace(PTRACE_SEIZE, main, 0, 0))
    time.sleep(1000)
print(os.read(hear, 9).decode(), flush=True)
"""


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> "Engine":
    return Engine(home, tmp_path)


def ticks(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def test_a_supervisor_out_of_descriptors_refuses_one_start_and_keeps_every_bot(engine: Engine) -> None:
    with engine:
        first = engine.start("/bin/sleep", "1000")
        _, most = resource.prlimit(engine.supervisor.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(
            engine.supervisor.pid, resource.RLIMIT_NOFILE, (engine.supervisor.num_fds() + 2, most)
        )
        with pytest.raises(SwarmcgError):
            engine.start("/bin/true")
        resource.prlimit(engine.supervisor.pid, resource.RLIMIT_NOFILE, (most, most))
        assert engine.start("/bin/true").wait(30).exit_code == 0
        with pytest.raises(WaitTimeout):
            first.wait(0)


def test_helpers_may_open_many_files_and_a_bot_as_many_as_we(engine: Engine) -> None:
    hear, tell = os.pipe()
    with engine, open(os.devnull, "rb") as null:
        engine.connection.reserve()
        bot = engine.connection.start(
            Launch(bot_id="bot"),
            ["/bin/sh", "-c", "ulimit -Sn"],
            {},
            cwd="/",
            stdio=(null.fileno(), tell, 2),
        )
        said = read_line(hear)
        bot.wait(30)
        for helper in (engine.supervisor, engine.keeper):
            soft, hard = resource.prlimit(helper.pid, resource.RLIMIT_NOFILE)
            assert soft == hard
    os.close(hear)
    os.close(tell)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert said in {str(soft), "unlimited"}


def test_an_environment_larger_than_any_message_is_an_error_of_one_start(engine: Engine) -> None:
    with engine:
        with pytest.raises(StartError, match="E2BIG"):
            engine.start("/bin/true", env={"A": "x" * (65 << 20)})
        assert engine.start("/bin/true").wait(30).exit_code == 0


def test_waiting_longer_than_poll_can_is_waiting(engine: Engine) -> None:
    with engine:
        assert engine.start("/bin/true").wait(float("inf")).exit_code == 0


def test_a_traced_zombie_keeps_no_keeper_busy(engine: Engine) -> None:
    with engine:
        bot = engine.start(sys.executable, "-c", TRACED, ready=True)
        until(lambda: psutil.Process(bot.pid).status() == psutil.STATUS_ZOMBIE)
        before = ticks(engine.keeper)
        time.sleep(1)  # what is measured is that nothing happens
        assert ticks(engine.keeper) - before < 0.3
        bot.terminate(0)
        assert bot.wait(30).exit_code == 0


def test_a_supervisor_without_its_keeper_is_not_busy_while_leftovers_have_their_grace(engine: Engine) -> None:
    with engine:
        bot = engine.sh("(trap '' TERM; echo ready; while :; do sleep 1; done) & exec sleep 1000")
        engine.keeper.kill()
        bot.terminate(60)
        until(lambda: not psutil.pid_exists(bot.pid))
        before = ticks(engine.supervisor)
        time.sleep(1)  # what is measured is that nothing happens
        assert ticks(engine.supervisor) - before < 0.3
        bot.terminate(0)
        assert bot.wait(30).reason == "unobserved"


def test_nobody_who_reads_our_output_waits_for_helpers(home: Path, tmp_path: Path) -> None:
    """The supervisor is stopped, so that it outlives its client: the pipe ends all the same."""
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]);"
        "from tests.host.engine import Engine; from pathlib import Path;"
        "e = Engine(sys.argv[2], Path(sys.argv[3])); e.start('/bin/sleep', '1000', grace=0);"
        "e.supervisor.suspend(); print(e.supervisor.pid, flush=True); os._exit(0)"
    )
    argv = [sys.executable, "-c", program, str(Path(__file__).parents[2]), str(home), str(tmp_path)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=30, check=True)
    supervisor = psutil.Process(int(done.stdout))
    supervisor.resume()
    until(lambda: not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE)
    until(lambda: not any(entry.is_dir() for entry in os.scandir(home)))
