"""Limits of running bots change from their own program and from any other; on any kernel, by files that need no
controller.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcg.errors import ConfigError, UnenforceableError
from swarmcg.resources import LinuxResources, Memory
from tests.host.command import Command
from tests.host.engine import Engine

DEPTH = LinuxResources(unified={"cgroup.max.depth": "7"})


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


@pytest.fixture
def swarmcg(home: Path, tmp_path: Path) -> Command:
    return Command(home, tmp_path)


def depth(path: str) -> str:
    return Path(path, "cgroup.max.depth").read_text().strip()


def test_what_was_changed_is_in_the_report(engine: Engine) -> None:
    bot = engine.start("sleep", "1000")
    bot.update(DEPTH)
    assert depth(bot.slice) == "7"
    Path(bot.slice, "cgroup.max.depth").write_text("8")  # by somebody else: the report tells what is
    bot.terminate_or_kill(0)
    assert bot.wait().limits == {"cgroup.max.depth": "8"}


def test_the_policy_of_the_start_holds_for_updates(engine: Engine) -> None:
    """On this kernel memory may be enforceable; a limit of version 1 is not anywhere."""
    wanted = LinuxResources(memory=Memory(swappiness=5), unified={"cgroup.max.depth": "7"})
    strict = engine.start("sleep", "1000")
    with pytest.raises(UnenforceableError, match=r"memory\.swappiness"):
        strict.update(wanted)
    assert depth(strict.slice) == "max"
    loose = engine.start("sleep", "1000", on_unenforceable="report")
    loose.update(wanted)
    loose.update(wanted)
    assert depth(loose.slice) == "7"
    loose.terminate_or_kill(0)
    assert [row.field for row in loose.wait().unenforced] == ["memory.swappiness"]


def test_anything_but_resources_is_refused(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="LinuxResources"):
        engine.start("sleep", "1000").update({"pids": {}})  # type: ignore[arg-type]  # what an untyped caller may do


def test_bots_are_found_by_id_and_incarnation_whoever_started_them(engine: Engine, swarmcg: Command) -> None:
    one = engine.start("sleep", "1000", bot_id="Bot One/ä")
    twins = [engine.start("sleep", "1000", bot_id="twin") for _ in range(2)]
    (swarmcg.state / "depth").write_text(DEPTH.to_json().decode())
    wanted = ("--resources", str(swarmcg.state / "depth"))
    done = swarmcg("set", "Bot One/ä", twins[1].incarnation, *wanted)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [depth(bot.slice) for bot in (one, *twins)] == ["7", "max", "7"]
    done = swarmcg("set", "twin", *wanted)
    assert done.returncode == 2
    assert "2 bots run under this id" in done.stderr
    assert all(f"incarnation {bot.incarnation}: pid {bot.pid} since 2" in done.stderr for bot in twins)
    assert all(f"slice {bot.slice}" in done.stderr for bot in twins)
    done = swarmcg("set", "twin2", *wanted)
    assert done.returncode == 2
    assert "Bot One/ä, twin" in done.stderr
    done = swarmcg("explain", "--against", twins[0].incarnation, "--json", *wanted)
    (row,) = json.loads(done.stdout)
    assert (row["file"], row["now"], row["then"]) == ("cgroup.max.depth", "max", "7")
    assert depth(twins[0].slice) == "max"


def test_the_device_rules_in_force_are_shown_beside_the_new_ones(engine: Engine, swarmcg: Command) -> None:
    engine.start("sleep", "1000", bot_id="b")
    assert swarmcg("set", "b", "--device-cgroup-rule", "c 1:5 r").returncode == 0
    done = swarmcg("explain", "--against", "b", "--json", "--device-cgroup-rule", "c 1:3 r")
    (row,) = json.loads(done.stdout)
    assert "c 1:5 r" in row["now"]
    assert "c 1:3 r" in row["then"]


def test_what_changes_nothing_says_so(engine: Engine, swarmcg: Command) -> None:
    engine.start("sleep", "1000", bot_id="b")
    done = swarmcg("explain", "--against", "b")
    assert (done.returncode, done.stdout) == (0, "Nothing is asked for: nothing would change.\n")


@pytest.mark.parametrize("verb", [("set", "b"), ("explain", "--against", "b")])
def test_a_value_that_only_the_plan_refuses_is_told_of_its_flag(
    engine: Engine, swarmcg: Command, verb: tuple[str, ...]
) -> None:
    engine.start("sleep", "1000", bot_id="b")
    done = swarmcg(*verb, "--pids-limit", "99999999")
    assert done.returncode == 2
    assert done.stderr.startswith("swarmcg: --pids-limit cannot be used (value '99999999')")


def test_what_is_not_in_force_is_said_by_the_command(engine: Engine, swarmcg: Command) -> None:
    engine.start("sleep", "1000", bot_id="b")
    done = swarmcg("set", "b", "--oom-kill-disable", "--on-unenforceable=report")
    assert done.returncode == 0
    (told,) = done.stderr.splitlines()
    assert told.startswith("swarmcg: ")
    assert "memory.disableOOMKiller is not in force" in told


def test_several_bots_change_together_or_not_at_all(engine: Engine, swarmcg: Command) -> None:
    bots = [engine.start("sleep", "1000", bot_id=f"b{i}") for i in range(3)]
    (swarmcg.state / "wrong").write_text(
        '{"unified": {"cgroup.max.depth": "9", "cgroup.max.descendants": "x"}}'
    )
    done = swarmcg("set", "b0", "b1", "b2", "--resources", str(swarmcg.state / "wrong"))
    assert done.returncode == 1
    assert "every value is as it was before" in done.stderr
    assert [depth(bot.slice) for bot in bots] == ["max"] * 3


def test_a_toml_file_says_the_same(engine: Engine, swarmcg: Command) -> None:
    bot = engine.start("sleep", "1000", bot_id="b")
    (swarmcg.state / "limits.toml").write_text('[unified]\n"cgroup.max.depth" = "7"\n')
    assert swarmcg("set", "b", "--resources", str(swarmcg.state / "limits.toml")).returncode == 0
    assert depth(bot.slice) == "7"
