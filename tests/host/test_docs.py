"""What the documentation shows in Python runs as it stands there."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from swarmcg.testing import SwarmingServer

ROOT: Final = Path(__file__).parents[2]
BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SOON_S: Final = 120.0
# What a program prints, by something that stands in it alone.
PRINTS: Final = {
    "bot = FakeBot()": r"exited\n",
    "task = server.give_task": r"b'hello\\n' exited 0\n",
    "DroneStarter(": r"exited \['/.*/c256-c8888\.[a-z2-7]{8}'\]\n",
}


def programs(name: str) -> list[str]:
    return BLOCK.findall((ROOT / name).read_text())


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """All that a program may leave on disk goes with this, and so does its path: a bot's must be short."""
    with tempfile.TemporaryDirectory(prefix="t") as directory:
        places = {f"SWARMCG_{kind}_DIR": f"{directory}/{kind}" for kind in ("STATE", "RUNTIME", "CACHE")}
        yield os.environ | places | {"TMPDIR": directory}


def run(program: str, environment: dict[str, str]) -> str:
    line = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(line, env=environment, check=False, capture_output=True, text=True, timeout=SOON_S)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("program", programs("docs/how-to.md") + programs("docs/tutorial.md"))
def test_an_example_runs_as_it_is(program: str, environment: dict[str, str]) -> None:
    said = run(program, environment)
    for mark, expected in PRINTS.items():
        if mark in program:
            assert re.fullmatch(expected, said)


def test_every_example_of_a_kind_is_there() -> None:
    found = programs("docs/how-to.md")
    assert all(sum(mark in program for program in found) == 1 for mark in PRINTS)


@pytest.mark.usefixtures("home")
def test_the_readme_s_example_runs_against_a_server(environment: dict[str, str]) -> None:
    """With a server and a directory that are there, and on a host that may not be able to enforce limits."""
    (program,) = programs("README.md")
    work = f"{environment['TMPDIR']}/bot-1"
    os.mkdir(work)
    with SwarmingServer() as server:
        server.terminate("bot-1")
        for shown, here in {
            "https://swarming.example.com": server.url,
            '"/srv/bot-1", limits)': f'"{work}", limits, {sys.executable!r}, on_unenforceable="report")',
        }.items():
            assert program.count(shown) == 1
            program = program.replace(shown, here)
        assert run(program, environment).startswith("exited ")
