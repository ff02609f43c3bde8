"""The bots unit: detached bots outlive every process of ours, and a stop ends and reports all of them."""

import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swarmcg import Config, Starter
from swarmcg.cgroup.home_lock import locked
from swarmcg.errors import HomeError, OwnerLostError, UnenforceableError
from swarmcg.keeper.wire import Wire
from swarmcg.resources import LinuxResources, Memory
from swarmcg.testing import SwarmingServer
from tests.host.command import SOON_S, line
from tests.host.engine import until
from tests.host.unit import Unit, lives

PATIENT = ("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.02; done")
DEAF = ("sh", "-c", "trap '' TERM; while :; do sleep 1000; done")
FOREVER = ("sleep", "1000")
READY = ("sh", "-c", "echo ready; exec sleep 1000")


@pytest.fixture
def unit(home: Path, tmp_path: Path) -> Iterator[Unit]:
    unit = Unit(home, tmp_path)
    unit.start()
    yield unit
    assert unit.stop("--grace", "0").returncode == 0
    assert not {"keeper.sock", "unit"} & set(os.listdir(unit.socket.parent))


def test_a_detached_command_outlives_the_command_line(unit: Unit) -> None:
    pid, place = unit.detach("one", *PATIENT)
    assert lives(pid)
    assert place.startswith(f"{unit.bots}/one.")
    assert os.getsid(pid) == pid
    done = unit("clean", "--yes", "--detached", "one")
    assert (done.returncode, done.stderr) == (0, "")
    head, row = (text.split("\t") for text in done.stdout.splitlines())
    assert dict(zip(head, row, strict=True))["REASON"] == "terminated"
    assert not lives(pid)
    assert (unit.reports()["one"].exit_code, unit.slices()) == (5, [])


def test_only_the_detached_ones_that_were_named_are_ended(unit: Unit) -> None:
    for name in ("one", "two", "three"):
        unit.detach(name, *FOREVER)
    done = unit("clean", "--yes", "--detached", "two", "nobody")
    assert done.returncode == 2
    assert "No bot of this id runs detached (value 'nobody')\nthese do: one, three, two\n" in done.stderr
    assert unit.slices() == ["one", "three"]
    assert unit("clean").stdout == ""  # they have an owner
    assert unit("clean", "--yes", "--detached").returncode == 0
    assert unit.slices() == []


def test_a_detached_one_is_ended_by_its_incarnation(unit: Unit) -> None:
    _, place = unit.detach("one", *FOREVER)
    done = unit("clean", "--yes", "--detached", place.rpartition(".")[2])
    assert (done.returncode, done.stderr, unit.slices()) == (0, "", [])


def test_an_empty_id_ends_nothing(unit: Unit) -> None:
    unit.detach("one", *FOREVER)
    done = unit("clean", "--yes", "--detached", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is empty" in done.stderr
    asked = unit("clean", "--detached")
    assert asked.returncode == 2
    assert "--yes --detached BOT_ID" in asked.stderr
    assert unit.slices() == ["one"]


def test_a_bot_in_the_foreground_is_not_taken_for_a_detached_one(unit: Unit) -> None:
    with unit.running("run", "--id", "mine", "--", *READY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        done = unit("clean", "--yes", "--detached", "mine")
        assert (done.returncode, done.stdout) == (2, "")
        assert "it runs in the foreground" in done.stderr
        assert process.poll() is None
        process.terminate()


def test_a_detached_one_is_changed_by_its_id(unit: Unit, tmp_path: Path) -> None:
    _, place = unit.detach("one", *FOREVER)
    (tmp_path / "limits.toml").write_text('unified = {"cgroup.max.depth" = "7"}')
    done = unit("set", "one", "--resources", str(tmp_path / "limits.toml"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Path(place, "cgroup.max.depth").read_text() == "7\n"
    assert unit("clean", "--yes", "--detached").returncode == 0
    assert unit.reports()["one"].limits == {"cgroup.max.depth": "7"}


def test_a_signal_to_clean_ends_the_grace_of_detached_ones(unit: Unit) -> None:
    unit.detach("deaf", *DEAF)
    with unit.running("clean", "--yes", "--detached", "--grace", "1h") as process:
        until(lambda: "terminated" in json.dumps(state_of(unit, "deaf")))
        process.terminate()
        assert process.wait(SOON_S) == 0
    assert unit.reports()["deaf"].reason == "killed-after-grace"


def state_of(unit: Unit, name: str) -> object:
    (place,) = (path for path in unit.bots.iterdir() if path.name.startswith(f"{name}."))
    try:
        return json.loads(os.getxattr(place, "trusted.swarmcg.stopping"))
    except OSError:
        return {}


def test_what_cannot_be_started_is_told_as_in_the_foreground(unit: Unit) -> None:
    done = unit("run", "--detach", "--", "/nonexistent")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (127, "", 3)
    assert unit.slices() == []


def test_without_a_unit_nothing_can_be_detached(home: Path, tmp_path: Path) -> None:
    nowhere = Unit(home, tmp_path)
    done = nowhere("run", "--detach", "--", "true")
    assert done.returncode == 125
    assert done.stderr.rstrip().endswith("run it in the foreground.")
    assert nowhere("run", "--detach", "--home", str(home), "--", "true").returncode == 125
    assert nowhere.stop().returncode == 0
    named = nowhere("clean", "--yes", "--detached", "one")
    assert (named.returncode, "there is no bots unit here" in named.stderr) == (2, True)
    everything = nowhere("clean", "--yes", "--detached")
    assert (everything.returncode, "there is no bots unit here" in everything.stderr) == (0, True)


def test_a_second_start_changes_nothing(unit: Unit) -> None:
    before = unit.processes()
    unit.start()
    assert unit.processes() == before


def test_a_second_unit_of_one_user_is_refused(unit: Unit) -> None:
    other = unit.directory / "second"
    other.mkdir()
    try:
        done = unit("host", "start", "--home", str(other))
    finally:
        other.rmdir()  # nothing was made in it
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 3)
    assert str(unit.directory) in done.stderr


def test_outside_of_a_unit_it_must_be_named(unit: Unit) -> None:
    done = unit("host", "start")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 3)


def test_the_keeper_is_in_a_leaf_and_bots_are_one_level_down(unit: Unit) -> None:
    pid, _ = unit.detach("one", *FOREVER)
    assert len(unit.processes()) == 2
    assert (unit.directory / "cgroup.procs").read_text() == ""
    assert f"/{unit.directory.name}/bots/one." in Path(f"/proc/{pid}/cgroup").read_text()


# Who dies, and what then happens


def replaced(unit: Unit, old: int) -> None:
    """Waits until another process commands than this one."""
    until(lambda: unit.processes().get("host", old) != old)


def test_when_the_one_that_commands_is_killed_its_heir_goes_on(unit: Unit) -> None:
    pid, _ = unit.detach("one", *PATIENT)
    old = unit.processes()["host"]
    unit.kill("host")
    replaced(unit, old)
    assert lives(pid)
    assert unit("clean", "--yes", "--detached", "one").returncode == 0
    assert (unit.reports()["one"].reason, unit.reports()["one"].exit_code) == ("terminated", 5)


def test_an_heir_learns_what_ended_while_nobody_commanded(unit: Unit) -> None:
    pid, _ = unit.detach("one", *FOREVER)
    os.kill(unit.processes()["host"], signal.SIGSTOP)
    os.kill(pid, signal.SIGTERM)
    until(lambda: not lives(pid))
    unit.kill("host")
    assert (unit.report("one").reason, unit.report("one").signal) == ("signaled", signal.SIGTERM)


def test_a_killed_keeper_is_replaced_and_its_bots_end_unobserved(unit: Unit) -> None:
    pid, _ = unit.detach("one", *FOREVER)
    unit.kill("keeper")
    unit.detach("two", "sh", "-c", "exit 4")
    assert unit.report("two").exit_code == 4
    assert lives(pid)
    os.kill(pid, signal.SIGTERM)
    assert (unit.report("one").reason, unit.report("one").signal) == ("unobserved", None)


def test_when_both_are_killed_the_next_command_puts_them_back(unit: Unit) -> None:
    pid, _ = unit.detach("one", *FOREVER)
    unit.kill("host", "keeper")
    assert unit.processes() == {}
    done = unit("clean")  # lists what has no owner, once the unit has one again
    assert (done.returncode, done.stdout) == (0, "")
    assert set(unit.processes()) == {"host", "keeper"}
    assert lives(pid)
    assert unit("clean", "--yes", "--detached").returncode == 0
    assert unit.reports()["one"].reason == "unobserved"


def test_a_ladder_that_was_begun_is_finished_by_the_heir(unit: Unit) -> None:
    unit.detach("deaf", *DEAF, flags=("--grace", "2"))
    with unit.running("clean", "--yes", "--detached", "deaf"):
        until(lambda: state_of(unit, "deaf"))
        unit.kill("host")
        assert unit.report("deaf").reason == "killed-after-grace"


def test_the_one_that_commands_is_killed_again_and_again(unit: Unit) -> None:
    unit.detach("one", *FOREVER)
    for _ in range(3):
        old = unit.processes()["host"]
        unit.kill("host")
        replaced(unit, old)
        assert unit("clean").returncode == 0  # it answers
    assert unit.slices() == ["one"]


# In the foreground


def test_run_uses_the_unit_s_home_and_keeps_its_own_session(unit: Unit) -> None:
    done = unit("run", "--id", "fg", "--", "sh", "-c", "grep 0:: /proc/self/cgroup; ps -o sid= -p $$")
    where, session = done.stdout.split()
    assert f"/{unit.directory.name}/bots/fg." in where
    assert int(session) == os.getsid(0)


def test_a_killed_run_does_not_leave_its_command(unit: Unit) -> None:
    with unit.running("run", "--id", "fg", "--", *READY) as process:
        assert line(process.stdout) == "ready"
        process.kill()
        assert unit.report("fg").reason == "unobserved"
    until(lambda: not unit.slices())


def test_a_run_is_told_when_the_unit_stops(unit: Unit) -> None:
    with unit.running(
        "run", "--id", "fg", "--", "sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.02; done"
    ) as process:
        assert line(process.stdout) == "ready"
        assert unit.stop().returncode == 0
        assert process.wait(SOON_S) == 6
    assert unit.reports()["fg"].reason == "terminated"


def test_a_run_is_told_of_the_stop_by_the_heir_as_well(unit: Unit) -> None:
    with unit.running("run", "--id", "fg", "--", *READY) as process:
        assert line(process.stdout) == "ready"
        old = unit.processes()["host"]
        unit.kill("host")
        replaced(unit, old)
        assert unit.stop().returncode == 0
        assert process.wait(SOON_S) == 128 + signal.SIGTERM
    assert unit.reports()["fg"].reason == "terminated"


def test_a_run_that_does_not_answer_is_killed_when_the_stop_must_end(unit: Unit) -> None:
    with unit.running("run", "--id", "fg", "--", *READY) as process:
        assert line(process.stdout) == "ready"
        process.send_signal(signal.SIGSTOP)
        assert unit.stop("--grace", "0").returncode in {0, 1}
        process.send_signal(signal.SIGCONT)
        assert process.wait(SOON_S) == 128 + signal.SIGKILL
    assert unit.slices() == []


# The stop


def test_a_stop_in_the_middle_of_a_ladder(unit: Unit) -> None:
    unit.detach("patient", *PATIENT)
    unit.detach("deaf", *DEAF)
    unit.detach("plain", *FOREVER)
    with unit.running("clean", "--yes", "--detached", "deaf", "--grace", "1h"):
        until(lambda: state_of(unit, "deaf"))
        done = unit.stop("--grace", "0.5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = {name: (r.reason, r.exit_code, r.signal) for name, r in unit.reports().items()}
    assert found == {
        "patient": ("terminated", 5, None),
        "deaf": ("killed-after-grace", None, signal.SIGKILL),
        "plain": ("terminated", None, signal.SIGTERM),
    }
    assert sorted(path.name for path in unit.directory.iterdir() if path.is_dir()) == []


def test_a_stop_goes_on_when_the_process_that_does_it_is_killed(unit: Unit) -> None:
    unit.detach("deaf", *DEAF)
    with unit.running("host", "stop", "--grace", "2") as stop:
        until(lambda: state_of(unit, "deaf"))
        unit.kill("host")
        assert stop.wait(SOON_S) == 0
    assert unit.reports()["deaf"].reason == "killed-after-grace"
    assert (unit.slices(), unit.processes()) == ([], {})


def test_a_stop_after_both_were_killed_reports_all_the_same(unit: Unit) -> None:
    unit.detach("one", *FOREVER)
    unit.kill("host", "keeper")
    assert unit.stop().returncode == 0
    assert unit.reports()["one"].reason == "unobserved"
    assert unit.processes() == {}


# Where it may be


def test_a_directory_that_is_no_cgroup_is_no_unit(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    unit = Unit(plain, tmp_path)
    done = unit("host", "start", "--home", str(plain))
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not a cgroup" in done.stderr
    assert os.listdir(plain) == []
    assert not unit.socket.exists()


# Who may, and what is not understood


def test_another_user_is_refused(unit: Unit) -> None:
    unit.socket.chmod(0o666)
    program = """
import os, sys
from swarmcg.supervisor.unit import Unit, connect
from swarmcg.errors import HomeError
os.chdir(sys.argv[2])
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
try:
    connect(Unit(directory=sys.argv[1], runtime=".", journal=""))
except HomeError as e:
    print(e.value, e.what)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(unit.directory), str(unit.socket.parent)],
        env=unit.env,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("65534 The bots unit serves root and its own user only"), done.stdout


@pytest.mark.parametrize(
    "text",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\2{}", b"\0\0\0\4null", b"\0\0\0\1{", b'\0\0\0\x0f{"do":"attach"}'],
)
def test_who_speaks_another_language_is_hung_up_on_and_ends_no_bot(unit: Unit, text: bytes) -> None:
    pid, _ = unit.detach("one", *FOREVER)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(unit.socket))
        stranger.settimeout(SOON_S)
        stranger.sendall(text)
        if not text.startswith(b"GET"):  # its length makes it wait for more
            while stranger.recv(4096):
                pass
    assert lives(pid)
    assert unit("clean").returncode == 0


def test_a_message_nested_without_end_ends_nobody_but_its_sender(unit: Unit) -> None:
    host = unit.processes()["host"]
    text = b"[" * 200_000
    with _connected(unit) as stranger:
        stranger.sendall(struct.pack("!I", len(text)) + text)
        while stranger.recv(4096):
            pass
    assert unit.processes()["host"] == host


def test_descriptors_that_nobody_asked_for_are_closed(unit: Unit) -> None:
    host = unit.processes()["host"]
    with _connected(unit) as stranger, open(os.devnull, "rb") as null:
        before = _descriptors(host)
        for order in ({"do": "attach"}, {"do": "nothing"}, {"do": "guest"}):
            text = json.dumps(order).encode()
            head = struct.pack("!I", len(text) | 20 << 26)
            socket.send_fds(stranger, [head + text], [null.fileno()] * 20)
        assert b"guest" in stranger.recv(4096)
        until(lambda: _descriptors(host) == before)


def test_a_request_of_a_newer_client_is_told_that_the_unit_is_older(unit: Unit) -> None:
    with _connected(unit) as control:
        ours, theirs = socket.socketpair()
        with theirs:
            Wire(control).send({"do": "attach"}, [theirs.fileno()])
        ours.settimeout(SOON_S)
        with ours:
            Wire(ours).send({"do": "fly"})
            said = ours.recv(4096)
    assert b'"fly"' in said
    assert b"started by an older swarmcg" in said


SENSELESS = {
    "an empty id": {"bot_id": ""},
    "half a character": {"bot_id": "\ud800"},
    "a grace without end": {"grace": 1e300},
    "a path with NUL": {"work_directory": "/tmp/\0"},
    "a report's path with NUL": {"report_file": "/tmp/\0"},
    "a field of another type": {"detach": "yes"},
    "argv of numbers": {"argv": [1, 2]},
    "cwd a number": {"cwd": 7},
    "env of numbers": {"env": {"a": 1}},
}


@pytest.mark.parametrize("part", SENSELESS.values(), ids=SENSELESS.keys())
def test_a_start_that_makes_no_sense_fails_and_ends_nobody(unit: Unit, part: dict[str, Any]) -> None:
    with _between_others(unit) as channel:
        _start(channel, part)
        said = channel.recv(4096)
    assert b"ConfigError" in said
    assert unit.slices() == ["other"]


@pytest.mark.parametrize(
    "order",
    [
        {"do": "drain", "deadline": 1e300},
        {"do": "drain", "deadline": float("inf")},
        {"do": "drain", "deadline": float("nan")},
        {"do": "drain"},
        {"do": "terminate", "grace": float("inf")},
        {"do": "terminate", "grace": "x"},
    ],
)
def test_an_order_that_makes_no_sense_is_hung_up_on_and_ends_nobody(
    unit: Unit, order: dict[str, Any]
) -> None:
    with _between_others(unit) as channel:
        _start(channel, {})
        assert b"started" in channel.recv(4096)
        Wire(channel).send(order)
        assert channel.recv(4096) == b""


@pytest.mark.parametrize("order", [{"do": "end", "ids": ["other"]}, {"do": "end", "ids": 5}, {"do": "stop"}])
def test_an_end_without_end_is_hung_up_on_and_ends_nobody(unit: Unit, order: dict[str, Any]) -> None:
    with _between_others(unit, order | {"grace": float("inf")}) as channel:
        assert channel.recv(4096) == b""


@contextlib.contextmanager
def _between_others(unit: Unit, order: dict[str, Any] | None = None) -> Iterator[socket.socket]:
    """A channel of one client, or the connection that an order was sent over; another client's bot outlives it all."""
    pid, _ = unit.detach("other", *FOREVER)
    host = unit.processes()["host"]
    with _connected(unit) as control:
        ours, theirs = socket.socketpair()
        ours.settimeout(SOON_S)
        with ours, theirs:
            if order is None:
                Wire(control).send({"do": "attach"}, [theirs.fileno()])
                theirs.close()
                yield ours
            else:
                Wire(control).send(order)
                yield control
    until(lambda: unit.slices() == ["other"])
    assert (unit.processes()["host"], lives(pid)) == (host, True)


def _start(channel: socket.socket, part: dict[str, Any]) -> None:
    """Asks for a start that differs from a good one in a part: of the order, or of what it launches."""
    whole = {"do": "start", "argv": FOREVER, "env": {}, "cwd": "/"}
    launch = {name: value for name, value in part.items() if name not in whole}
    asked = whole | {"launch": {"bot_id": "bot", "grace": 0} | launch}
    with open(os.devnull, "rb+") as null:
        Wire(channel).send(
            asked | {name: part[name] for name in part.keys() & whole.keys()}, [null.fileno()] * 3
        )


def test_a_unit_out_of_descriptors_waits_for_some_and_ends_nobody(unit: Unit) -> None:
    pid, _ = unit.detach("one", *FOREVER)
    host = unit.processes()["host"]
    limits = resource.prlimit(host, resource.RLIMIT_NOFILE)
    resource.prlimit(host, resource.RLIMIT_NOFILE, (_descriptors(host) + 4, limits[1]))
    with contextlib.ExitStack() as held:
        for _ in range(4):  # each takes two
            held.enter_context(_reached(unit))
        until(lambda: _descriptors(host) >= resource.prlimit(host, resource.RLIMIT_NOFILE)[0])
        before = _cpu_s(host)
        time.sleep(1)
        assert _cpu_s(host) - before < 0.5
    assert unit("clean", "--yes", "--detached", "one").returncode == 0
    assert (unit.processes()["host"], lives(pid)) == (host, False)


def test_who_asks_and_takes_nothing_in_holds_nobody_up_for_long(unit: Unit) -> None:
    for number in range(3):
        unit.detach(f"bot-{number}", *FOREVER)
    with _connected(unit) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        text = json.dumps({"do": "guest"}).encode()
        deaf.settimeout(0.5)
        # Until the answers have filled its buffer, and then the questions the unit's; or until it is hung up on.
        with contextlib.suppress(TimeoutError, BrokenPipeError):
            while True:
                deaf.sendall(struct.pack("!I", len(text)) + text)
        assert unit("clean", "--yes", "--detached").returncode == 0


def _reached(unit: Unit) -> socket.socket:
    stranger = socket.socket(socket.AF_UNIX)
    stranger.settimeout(SOON_S)
    stranger.connect(str(unit.socket))
    return stranger


def _connected(unit: Unit) -> socket.socket:
    stranger = _reached(unit)
    assert b"welcome" in stranger.recv(4096)
    return stranger


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# The library


@pytest.fixture
def config() -> Iterator[Config]:
    with tempfile.TemporaryDirectory(prefix="bot") as work:
        os.mkdir(f"{work}/w")
        yield Config("bot-1", f"{work}/w", python_version=sys.executable)


@pytest.fixture
def server() -> Iterator[SwarmingServer]:
    with SwarmingServer() as server:
        yield server


@pytest.fixture
def starter(unit: Unit, server: SwarmingServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starter]:
    for name in ("SWARMCG_STATE_DIR", "SWARMCG_RUNTIME_DIR", "SWARMCG_CACHE_DIR"):
        monkeypatch.setenv(name, unit.env[name])
    with Starter(server.url) as starter:
        yield starter


def test_a_starter_s_bots_live_in_the_unit_and_end_with_it(
    unit: Unit, starter: Starter, config: Config
) -> None:
    bot = starter.start(config)
    assert str(bot.slice).startswith(f"{unit.bots}/")
    starter.close()
    assert bot.wait(SOON_S).reason == "terminated"
    assert unit.slices() == []


@pytest.mark.parametrize("detach", [False, True])
def test_limits_that_are_refused_are_refused_before_anything_is_downloaded(
    unit: Unit, starter: Starter, config: Config, server: SwarmingServer, *, detach: bool
) -> None:
    limited = msgspec.structs.replace(config, resources=LinuxResources(memory=Memory(swappiness=10)))
    with pytest.raises(UnenforceableError):
        starter.start(limited, detach=detach)
    assert server.requests == []
    assert unit.slices() == []
    bot = starter.start(config, detach=detach)
    bot.terminate_or_kill(0)


def test_a_detached_bot_outlives_its_starter(
    starter: Starter, config: Config, server: SwarmingServer
) -> None:
    bot = starter.start(config, detach=True)
    starter.close()
    assert lives(bot.pid)
    task = server.give_task(["echo", "still here"])
    assert task.wait(SOON_S) == "COMPLETED"
    bot.drain()
    assert bot.wait(SOON_S).reason == "exited"


def test_a_starter_goes_on_with_the_heir(unit: Unit, starter: Starter, config: Config) -> None:
    first = starter.start(config)
    old = unit.processes()["host"]
    unit.kill("host")
    replaced(unit, old)
    assert unit.report("bot-1").incarnation == first.incarnation  # it was not detached, and its owner is lost
    with pytest.raises(OwnerLostError):
        first.wait(SOON_S)
    second = starter.start(config)
    second.terminate_or_kill()
    assert second.wait().reason == "terminated"


def test_the_bots_of_a_killed_program_are_ended(unit: Unit, config: Config, server: SwarmingServer) -> None:
    program = """
import sys
from swarmcg import Config, Starter
bot = Starter(sys.argv[1]).start(Config("bot-1", sys.argv[2], python_version=sys.executable))
print("ready", flush=True)
sys.stdin.read()
"""
    words = [sys.executable, "-c", program, server.url, str(config.work_directory)]
    with subprocess.Popen(
        words, env=unit.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert line(owner.stdout) == "ready"
        owner.kill()
    assert unit.report("bot-1").reason == "terminated"
    until(lambda: not unit.slices())


def test_detaching_needs_the_unit(
    config: Config, server: SwarmingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMCG_RUNTIME_DIR", str(tmp_path / "none"))
    with (
        Starter(server.url, cache_directory=tmp_path / "cache") as starter,
        pytest.raises(HomeError) as caught,
    ):
        starter.start(config, detach=True)
    assert "in the foreground" in (caught.value.remedy or "")


def test_a_lock_on_the_home_delays_neither_the_host_nor_a_stop(unit: Unit) -> None:
    """What killed guests have left is ended once the lock is free; everybody else does not wait for that."""
    host = unit.processes()["host"]
    with unit.running("run", "--id", "lost", "--", *READY) as guest:
        assert line(guest.stdout) == "ready"
        with locked(str(unit.bots), fcntl.LOCK_SH):
            guest.kill()
            guest.wait()
            unit.detach("one", *FOREVER)
            assert unit("clean", "--yes", "--detached", "one").returncode == 0
            assert (unit.slices(), unit.processes()["host"]) == (["lost"], host)
        assert unit.report("lost").reason == "unobserved"


def test_a_stop_while_somebody_holds_the_lock_of_the_home_ends_all(unit: Unit) -> None:
    with unit.running("run", "--id", "lost", "--", *READY) as guest:
        assert line(guest.stdout) == "ready"
        unit.detach("one", *FOREVER)
        with contextlib.ExitStack() as lock:
            lock.enter_context(locked(str(unit.bots), fcntl.LOCK_SH))
            guest.kill()
            guest.wait()
            with unit.running("host", "stop", "--grace", "60") as stop:
                until(lambda: unit.slices() == ["lost"])
                lock.close()
                assert stop.wait(SOON_S) == 0
    assert {bot: report.reason for bot, report in unit.reports().items()} == {
        "one": "terminated",
        "lost": "unobserved",
    }
