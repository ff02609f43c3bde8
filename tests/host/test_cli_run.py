"""`swarmcg run` as a program among programs: statuses, streams, environment, signals, errors."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from swarmcg.bot import ExitReport
from tests.host.command import SOON_S, Command, line

READY = "echo ready"
FOREVER = "while :; do sleep 1; done"


@pytest.fixture
def swarmcg(home: Path, tmp_path: Path) -> Command:
    return Command(home, tmp_path)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "exit 137"], 137),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
    ],
)
def test_the_exit_status_is_the_commands_and_nothing_is_printed(
    swarmcg: Command, words: list[str], status: int
) -> None:
    done = swarmcg("run", "--", *words)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert swarmcg.slices() == []


@pytest.mark.parametrize(
    ("words", "status", "what"),
    [
        (["/nonexistent"], 127, "exec failed"),
        (["nonexistent-command"], 127, "exec failed"),
        ([""], 127, "its name is empty"),
        (["/etc/passwd"], 126, "exec failed"),
        (["/"], 126, "exec failed"),
        (["-w", "/nonexistent", "true"], 125, "chdir failed"),
        (["--id", "", "true"], 125, "The bot id is empty"),
        (["-m", "5x", "true"], 125, "--memory cannot be used"),
        (["--grace", "8d", "true"], 125, "--grace cannot be used"),
        (["--nonsense", "true"], 125, "unrecognized arguments: --nonsense"),
        (["--resources", "/nonexistent", "true"], 125, "--resources cannot be read"),
        (["--resources", "-", "true"], 125, "The resources are not valid JSON"),
        (["--report", "/nonexistent/report", "true"], 125, "--report cannot be written"),
        (["--env-file", "/nonexistent", "true"], 125, "--env-file cannot be read"),
        (["--device-read-bps", "/dev/null:1m", "true"], 125, "--device-read-bps cannot be used"),
        ([], 125, "No command was named"),
    ],
)
def test_what_cannot_be_run_is_one_error(swarmcg: Command, words: list[str], status: int, what: str) -> None:
    done = swarmcg("run", *words)
    assert done.returncode == status
    assert what in done.stderr.splitlines()[0]
    assert done.stderr.startswith("swarmcg: ")
    assert 2 <= len(done.stderr.splitlines()) <= 3, done.stderr
    assert swarmcg.slices() == []


def test_a_value_that_only_the_plan_refuses_is_told_of_its_flag(swarmcg: Command, tmp_path: Path) -> None:
    done = swarmcg("run", "--pids-limit", "99999999", "--", "touch", f"{tmp_path}/ran")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("swarmcg: --pids-limit cannot be used (value '99999999')")
    file = tmp_path / "resources.json"
    file.write_text('{"pids": {"limit": 99999999}}')
    done = swarmcg("run", "--resources", str(file), "--", "touch", f"{tmp_path}/ran")
    assert done.stderr.startswith(f"swarmcg: --resources {file}: pids.limit makes no sense (value 99999999)")
    assert not (tmp_path / "ran").exists()


def test_a_home_that_is_no_cgroup_is_refused(swarmcg: Command, tmp_path: Path) -> None:
    done = swarmcg("run", "--home", str(tmp_path), "true")
    assert done.returncode == 125
    assert done.stderr.splitlines()[0].startswith("swarmcg: The home is not a cgroup")


def test_reports_that_cannot_be_kept_forbid_the_start(swarmcg: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    env = swarmcg.env | {"SWARMCG_STATE_DIR": f"{tmp_path}/file/state"}
    done = swarmcg("run", "--", "touch", f"{tmp_path}/ran", env=env)
    assert done.returncode == 125
    assert "Reports cannot be kept" in done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("script", "how"), [("exit 3", "with exit code 3"), ("kill -9 $$", "by signal 9")], ids=["exit", "signal"]
)
def test_a_report_for_which_there_is_no_room_is_told_once(swarmcg: Command, script: str, how: str) -> None:
    """Our exit status does not tell how the command ended, so the error does."""
    done = swarmcg("run", "--report", "/dev/full", "--", "sh", "-c", script)
    what, why, _ = done.stderr.splitlines()
    assert done.returncode == 125
    assert (what, why) == (
        f"swarmcg: The command ended {how}, but the report could not be written (/dev/full)",
        "ENOSPC: No space left on device",
    )
    (report,) = swarmcg.reports()
    assert how in {f"with exit code {report.exit_code}", f"by signal {report.signal}"}


@pytest.mark.parametrize("name", ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"])
def test_a_report_to_a_descriptor_of_ours_stands_in_order_among_what_others_write_there(
    swarmcg: Command, tmp_path: Path, name: str
) -> None:
    """The shell opens its file without O_APPEND: all who write share one offset, as with any program's output."""
    said = tmp_path / "said"
    done = swarmcg.sh(f"{{ $RUN --report {name} -- sh -c 'echo one >&2'; echo two >&2; }} 2>{said}")
    assert (done.returncode, done.stdout) == (0, "")
    one, report, two = said.read_bytes().splitlines()
    assert (one, two) == (b"one", b"two")
    assert ExitReport.from_json(report) == swarmcg.reports()[0]


def test_a_report_to_a_descriptor_that_is_not_open_or_will_be_gone_forbids_the_start(
    swarmcg: Command,
) -> None:
    for words, why in (
        (["--report", "/dev/fd/77"], "--report cannot be written (/dev/fd/77)"),
        (["--report", "/dev/stderr", "--detach"], "--report /dev/stderr and --detach exclude each other"),
    ):
        done = subprocess.run(
            [swarmcg.words("run")[0], "run", *words, "--", "true"],
            check=False, capture_output=True, text=True, timeout=SOON_S, env=swarmcg.env,
        )  # fmt: skip
        assert done.returncode == 125
        assert done.stderr.startswith(f"swarmcg: {why}")


def test_a_report_to_a_descriptor_that_takes_nothing_is_told_as_any(swarmcg: Command) -> None:
    done = swarmcg.sh("$RUN --report /dev/fd/3 -- sh -c 'exit 3' 3>/dev/full")
    assert done.returncode == 125
    first = "swarmcg: The command ended with exit code 3, but the report could not be written (/dev/fd/3)"
    assert done.stderr.splitlines()[0] == first


def test_limits_that_cannot_be_enforced_forbid_the_start_or_are_reported(
    swarmcg: Command, tmp_path: Path
) -> None:
    refused = swarmcg("run", "--oom-kill-disable", "--", "touch", f"{tmp_path}/ran")
    assert refused.returncode == 125
    assert "memory.disableOOMKiller cannot be enforced" in refused.stderr
    assert "--on-unenforceable=report" in refused.stderr
    assert not (tmp_path / "ran").exists()
    report = tmp_path / "report.json"
    words = ("--oom-kill-disable", "--on-unenforceable=report", "--report", str(report), "--", "true")
    done = swarmcg("run", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["field"] for row in json.loads(report.read_bytes())["unenforced"]] == [
        "memory.disableOOMKiller"
    ]


def test_a_pipe_whose_reader_is_the_command_ends(swarmcg: Command) -> None:
    assert swarmcg.sh("set -o pipefail; yes | $RUN -- head -1; echo ${PIPESTATUS[*]}").stdout == "y\n141 0\n"


def test_a_pipe_whose_writer_is_the_command_ends(swarmcg: Command) -> None:
    assert swarmcg.sh("$RUN -- yes | head -1; echo ${PIPESTATUS[*]}").stdout == "y\n141 0\n"


def environment(words: list[str], env: dict[bytes, bytes]) -> set[bytes]:
    done = subprocess.run(words, env=env, check=True, capture_output=True, timeout=SOON_S)
    return set(done.stdout.split(b"\0"))


def test_the_environment_arrives_byte_for_byte(swarmcg: Command) -> None:
    odd = {b"\xff\xfeodd": b"\x80\n", b"a b": b"=", b"1": b"", b"LANG": b"C", b"x.y-z": b"\xc3\xa9"}
    env = {**{os.fsencode(k): os.fsencode(v) for k, v in swarmcg.env.items()}, **odd}
    for name in (b"LC_ALL", b"LC_CTYPE", b"PYTHONUTF8"):
        env.pop(name, None)  # with these absent and LANG=C, Python would add LC_CTYPE
    assert environment(swarmcg.words("run", "--", "env", "-0"), env) == environment(["env", "-0"], env)


def test_flags_add_to_the_environment(swarmcg: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("# comment\n\nONE=file\n  TWO=file=2\nOURS\nNOT_OURS\n")
    words = ["--env-file", f"{tmp_path}/file", "-e", "ONE=flag", "-e", "ALSO", "-e", "EMPTY="]
    env = swarmcg.env | {"OURS": "ours", "ALSO": "also"}
    done = swarmcg("run", *words, "env", env=env)
    got = dict(entry.split("=", 1) for entry in done.stdout.splitlines() if "=" in entry)
    wanted = {"ONE": "flag", "TWO": "file=2", "OURS": "ours", "ALSO": "also", "EMPTY": ""}
    assert wanted.items() <= got.items()
    assert "NOT_OURS" not in got


def test_inherited_descriptors_arrive_and_no_others(swarmcg: Command) -> None:
    hear, tell = os.pipe()
    with open(hear, encoding="ascii") as heard:
        with open(tell, "w", encoding="ascii"):
            script = f"echo through >&{tell}; echo /proc/$$/fd/*"
            done = swarmcg("run", "--", "bash", "-c", script, pass_fds=[tell])
        assert heard.read() == "through\n"
    with open(os.devnull, "w", encoding="ascii") as other:
        plain = script.replace(str(tell), str(other.fileno()))
        bare = subprocess.run(
            ["bash", "-c", plain], check=True, capture_output=True, text=True, pass_fds=[other.fileno()]
        )
        assert numbers(done.stdout) - {tell} == numbers(bare.stdout) - {other.fileno()}


def numbers(paths: str) -> set[int]:
    return {int(path.rpartition("/")[2]) for path in paths.split()}


def test_a_closed_standard_input_stays_closed(swarmcg: Command) -> None:
    assert "Bad file descriptor" in swarmcg.sh("$RUN -- cat <&- 2>&1").stdout


def test_standard_input_is_the_commands(swarmcg: Command) -> None:
    assert swarmcg("run", "cat", stdin=None, input="text").stdout == "text"


@pytest.mark.parametrize("ignored", ["", "HUP", "INT QUIT", "HUP INT TERM"])
def test_signals_are_as_the_caller_left_them(swarmcg: Command, ignored: str) -> None:
    look = "grep ^Sig[BI] /proc/self/status"
    ignore = f"trap '' {ignored};" if ignored else ""
    assert swarmcg.sh(f"{ignore} $RUN -- {look}").stdout == swarmcg.sh(f"{ignore} {look}").stdout


def test_the_command_stays_in_our_session_directory_and_process_group(
    swarmcg: Command, tmp_path: Path
) -> None:
    script = "pwd; umask; cut -d' ' -f5,6 /proc/$$/stat"
    done = swarmcg("run", "--", "sh", "-c", script, cwd=tmp_path, umask=0o027, start_new_session=True)
    where, mask, numbers = done.stdout.splitlines()
    assert (where, mask) == (str(tmp_path), "0027")
    group, session = numbers.split()
    assert group == session
    assert swarmcg("run", "-w", "/", "pwd", cwd=tmp_path).stdout == "/\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_by_kill_starts_the_ladder(swarmcg: Command, number: signal.Signals) -> None:
    script = f"trap 'exit 9' TERM; trap '' HUP; {READY}; {FOREVER}"
    with swarmcg.running("run", "--", "sh", "-c", script) as process:
        assert line(process.stdout) == "ready"
        process.send_signal(number)
        assert process.wait(SOON_S) == 9
    assert [(r.reason, r.exit_code) for r in swarmcg.reports()] == [("terminated", 9)]
    assert swarmcg.slices() == []


def test_a_second_signal_cuts_the_grace_short(swarmcg: Command) -> None:
    script = f"trap 'echo no' TERM; {READY}; {FOREVER}"
    with swarmcg.running("run", "--grace", "1h", "--", "sh", "-c", script) as process:
        assert line(process.stdout) == "ready"
        process.terminate()
        assert line(process.stdout) == "no"
        process.terminate()
        assert process.wait(SOON_S) == 137
    assert swarmcg.reports()[0].reason == "killed-after-grace"


def test_what_the_command_leaves_behind_is_killed(swarmcg: Command) -> None:
    done = swarmcg("run", "--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & exit 4")
    assert done.returncode == 4
    assert swarmcg.reports()[0].leftovers.count == 1
    assert swarmcg.slices() == []


def test_the_default_id_is_the_commands_name_and_ours_is_taken_as_it_is(swarmcg: Command) -> None:
    swarmcg("run", "/bin/true")
    swarmcg("run", "--id", "Büro/7", "true")
    first, second = swarmcg.reports()
    assert first.bot_id.startswith("true-")
    assert second.bot_id == "Büro/7"


def test_without_root_and_delegation_the_cure_is_named(tmp_path: Path, swarmcg: Command) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give it up")
    words = ["setpriv", "--reuid=65534", "--clear-groups", swarmcg.words("run")[0], "run", "true"]
    tmp_path.chmod(0o777)
    done = subprocess.run(
        words,
        env=swarmcg.env,
        check=False,
        capture_output=True,
        text=True,
        timeout=SOON_S,
        stdin=subprocess.DEVNULL,
    )
    if "Permission denied" in done.stderr and "swarmcg:" not in done.stderr:
        pytest.skip("another user cannot read this Python")
    assert done.returncode == 125
    what, why, cure = done.stderr.splitlines()
    assert what.startswith("swarmcg: No cgroup is delegated to this user")
    assert "only root" in why
    assert "user manager" in cure


def test_a_home_that_the_first_run_made_is_removed_by_the_last(home: Path, tmp_path: Path) -> None:
    swarmcg = Command(home / "made", tmp_path)
    words = ("--", "sh", "-c", "echo ready; read _")
    with swarmcg.running("run", *words, stdin=subprocess.PIPE) as first:
        assert line(first.stdout) == "ready"
        with swarmcg.running("run", *words, stdin=subprocess.PIPE) as second:
            assert line(second.stdout) == "ready"
            for process in (first, second):
                process.communicate("go\n", timeout=SOON_S)
                assert process.returncode == 0
    assert not (home / "made").exists()
