import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarmcg import __version__
from swarmcg.cgroup import hierarchy
from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.cli.main import VERBS, main

SWARMCG = str(Path(sys.executable).with_name("swarmcg"))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"swarmcg {__version__}\n"


def test_version_and_help_load_next_to_nothing() -> None:
    script = (
        "import sys; from swarmcg.cli import main; "
        "print(*(m for m in sys.modules if 'swarmcg' in m or m in {'msgspec', 'psutil', 'ctypes'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    own = {
        f"swarmcg.{name}"
        for name in ("cli", "cli.complaint", "cli.main", "cli.output", "cli.parser", "errors")
    }
    assert set(done.stdout.split()) <= own | {"swarmcg"}


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_has_examples(verb: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"] if verb else ["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert f"swarmcg {verb or 'run'} -" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("words", "status", "what"),
    [
        (["nonsense"], 2, "swarmcg: There is no verb 'nonsense'"),
        (["--nonsense"], 2, "swarmcg: unrecognized arguments: --nonsense"),
        (["run"], 125, "swarmcg: No command was named\nnothing follows 'swarmcg run'"),
        (["run", "-m", "1g"], 125, "swarmcg: No command was named\nnothing follows the flags"),
        (["run", "--nonsense", "true"], 125, "swarmcg: run: unrecognized arguments: --nonsense"),
        (["explain", "-m", "x"], 2, "swarmcg: --memory cannot be used"),
        (["explain", "extra"], 2, "swarmcg: explain: unrecognized arguments: extra"),
        (["explain", "--resources", "/nonexistent"], 2, "swarmcg: --resources cannot be read"),
        (["explain", "--resources", "/"], 2, "swarmcg: --resources cannot be read"),
        (
            ["explain", "--pids-limit", "99999999"],
            2,
            "swarmcg: --pids-limit cannot be used (value '99999999')",
        ),
        (["explain", "--cpus", "99999999999"], 2, "swarmcg: --cpus cannot be used (value '99999999999')"),
        (
            ["explain", "--blkio-weight-device", "8:0:20", "--blkio-weight-device", "8:0:5"],
            2,
            "swarmcg: --blkio-weight-device cannot be used (value '8:0:5')",
        ),
        (
            ["explain", "--device-cgroup-rule", "c 9999999999:1 r"],
            2,
            "swarmcg: --device-cgroup-rule cannot be used",
        ),
        (["explain", "-m", "8000p"], 2, "swarmcg: --memory cannot be used (value '8000p')"),
        (
            ["explain", "-m", "2m", "--memory-swap", "1m"],
            2,
            "swarmcg: --memory-swap cannot be used (value '1m')",
        ),
        (["bot", "b"], 2, "swarmcg: bot: the following arguments are required"),
    ],
)
def test_a_wrong_call_is_one_error(
    words: list[str], status: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(what)
    assert 2 <= len(err.splitlines()) <= 3


def test_without_a_verb_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert "verbs:" in err


@pytest.mark.parametrize(
    ("verb", "hint"),
    [
        ("stop", "clean --yes --detached BOT_ID"),
        ("start", "swarmcg run"),
        ("logs", "journalctl"),
        ("kill", "SIGTERM"),
        ("list", "swarmcg ps"),
        ("ls", "swarmcg ps"),
        ("status", "swarmcg ps"),
        ("stats", "swarmcg ps"),
        ("help", "swarmcg VERB --help"),
    ],
)
def test_a_verb_of_other_programs_gets_a_hint(
    verb: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "bot-1"]) == 2
    assert hint in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--name", "x"], "--id"),
        (["--name=x"], "--id"),
        (["--rm"], "nothing is left"),
        (["-it"], "terminal"),
        (["-i", "-t"], "terminal"),
        (["-c", "512"], "--cpu-shares"),
    ],
)
def test_a_habit_from_docker_gets_a_hint(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words, "true"]) == 125
    assert hint in capsys.readouterr().err.splitlines()[-1]


def test_toml_under_another_name_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "limits.conf").write_text('[memory]\nlimit = "1g"\n')
    assert main(["explain", "--resources", str(tmp_path / "limits.conf")]) == 2
    assert "ends in .toml" in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "limits.conf").write_text("{")
    assert main(["explain", "--resources", str(tmp_path / "limits.conf")]) == 2
    assert "JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", '{"memory": {"limit": "x"}}', "memory.limit is not valid"),
        ("a.json", '{"cpu": {"cpus": "\\ud800"}}', "cpu.cpus is not valid (value '\\ud800')"),
        ("a.toml", "[[", "not valid TOML"),
        ("a.toml", "memory.limit = 'x'", "memory.limit is not valid"),
        ("a.toml", "cpu.shares = -1", "cpu.shares"),
    ],
)
def test_what_is_wrong_in_a_file_of_resources_names_the_file(
    name: str, text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    for verb in (["explain"], ["set", "bot"]):
        assert main([*verb, "--resources", str(tmp_path / name)]) == 2
        first, *_ = capsys.readouterr().err.splitlines()
        assert first.startswith(f"swarmcg: --resources {tmp_path / name}: ")
        assert told in first


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--swarming-url", "foo", "bot"], "URL"),
        (["--swarming-url", "http://127.0.0.1:9", ""], "The bot id is empty"),
    ],
)
def test_an_id_or_url_that_makes_no_sense_is_a_wrong_call_of_bot(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bot", "--work-dir", str(tmp_path), *words]) == 2
    assert told in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--network-interface", "eth0"], "--network-interface without a rate limits nothing"),
        (["--egress-bps", "5"], "--egress-bps cannot be used (value '5')"),
        (
            ["--ingress-bps", "5k", "--network-interface", "a/b"],
            "--network-interface cannot be used (value 'a/b')",
        ),
    ],
)
def test_a_bandwidth_that_makes_no_sense_names_the_flag(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *words]) == 2
    assert capsys.readouterr().err.splitlines()[0] == f"swarmcg: {told}" + (
        " (value 'eth0')" if "eth0" in words else ""
    )


def test_what_only_the_plan_finds_in_a_file_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text('{"memory": {"limit": 5, "swap": 4}}')
    assert main(["explain", "--resources", str(tmp_path / "a.json")]) == 2
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith(f"swarmcg: --resources {tmp_path / 'a.json'}: memory.swap")


def test_a_flag_beside_a_file_is_told_by_its_own_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text('{"pids": {"limit": 5}}')
    assert main(["explain", "--resources", str(tmp_path / "a.json"), "--blkio-weight", "5000"]) == 2
    assert capsys.readouterr().err.startswith("swarmcg: --blkio-weight cannot be used (value '5000')")


def explained(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SWARMCG, "explain", *words], check=False, capture_output=True, text=True, input=text
    )


def test_explain_tells_every_field_as_json() -> None:
    done = explained("--json", "--resources", "-", "--oom-kill-disable", text='{"pids": {"limit": 5}}')
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row["field"]: row for row in json.loads(done.stdout)}
    assert rows.keys() == {"pids.limit", "memory.disableOOMKiller"}
    assert all(
        row.keys() == {"field", "file", "value", "why", "enforceable", "remedy"} for row in rows.values()
    )
    assert (rows["pids.limit"]["file"], rows["pids.limit"]["value"]) == ("pids.max", "5")
    assert rows["memory.disableOOMKiller"]["file"] is None
    assert rows["memory.disableOOMKiller"]["enforceable"] is False


def test_explain_without_a_place_for_slices_tells_why_nothing_is_enforceable() -> None:
    done = explained("--json", "--home", "/nonexistent", "-m", "1g", "--pids-limit", "5")
    rows = json.loads(done.stdout)
    assert [row["enforceable"] for row in rows] == [False] * 3
    assert all(row["why"] and row["remedy"] for row in rows)


def test_explain_tells_a_user_of_a_hybrid_host_what_root_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To be root brings devices there, and no controller that version 1 holds."""
    seen = Hierarchy(
        mount=str(tmp_path), writable=True, own=None, v1=frozenset({"memory", "pids"}), systemd=True
    )
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(hierarchy, "look", lambda: seen)
    assert main(["explain", "--json", "-m", "1g", "--pids-limit", "5", "--device", "/dev/null"]) == 0
    rows = {row["field"]: row for row in json.loads(capsys.readouterr().out)}
    for field, controller in (("memory.limit", "memory"), ("pids.limit", "pids")):
        lack = seen.lack(controller)
        assert (rows[field]["why"], rows[field]["remedy"]) == (lack.why, lack.remedy)
    device = next(row for field, row in rows.items() if field.startswith("devices"))
    assert device["why"].startswith("no cgroup is delegated to this user")


def test_explain_in_plain_text() -> None:
    done = explained("--oom-kill-disable")
    head, row = (line.split("\t") for line in done.stdout.splitlines())
    assert head == ["FIELD", "FILE", "VALUE", "ENFORCEABLE", "WHY", "REMEDY"]
    assert row[:4] == ["memory.disableOOMKiller", "-", "true", "no"]
    assert row[5].startswith("Leave it out")
    assert explained().stdout == "Nothing is asked for: a slice without limits.\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    hear, tell = os.pipe()
    os.close(hear)
    with open(tell, "w", encoding="ascii") as broken:
        done = subprocess.run([SWARMCG, "explain"], check=False, stdout=broken, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_closed_standard_streams_cause_no_traceback(closed: str) -> None:
    script = f"{{ {SWARMCG} explain -m x {closed}; }} 2>&1; echo $?"
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("2\n")
    assert "Traceback" not in done.stdout


FULL = str(Path(__file__).with_name("golden") / "full.json")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words",
    [("explain", "-m", "1g"), ("explain", "--json", "--resources", FULL), ("doctor",), ("--help",)],
    ids=["little", "much", "doctor", "help"],
)
def test_what_cannot_be_written_is_said_of_the_output(words: tuple[str, ...], unbuffered: str) -> None:
    """A full disk behind standard output is no refusal of what was asked for, be it found by a flush or by a print."""
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [SWARMCG, *words], check=False, stdout=full, stderr=subprocess.PIPE, text=True, env=env
        )
    assert done.returncode > 0
    what, why, cure = done.stderr.splitlines()
    assert what == "swarmcg: Standard output cannot be written"
    assert why.startswith("ENOSPC: ")
    assert cure.startswith("Free space where it goes")
