"""SIGTERM and exec: a bot that forgets it is told again; a command, and a bot that does not, are told once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.engine import SOON_S, Engine

FORGETFUL = """
trap 'told=1' TERM
echo ready
while [ -z "$told" ]; do sleep 0.05; done
exec sh -c 'trap "exit 3" TERM; while :; do sleep 0.05; done'
"""
COUNTS = """
trap 'told=$((told + 1))' TERM
echo ready
for i in $(seq 60); do sleep 0.05; done
exit $told
"""


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


def test_a_bot_that_executes_itself_anew_is_told_again(engine: Engine, tmp_path: Path) -> None:
    bot = engine.sh(FORGETFUL, work_directory=str(tmp_path))
    bot.terminate(SOON_S)
    report = bot.wait(SOON_S)
    assert (report.reason, report.exit_code) == ("terminated", 3)


def test_a_drained_bot_is_told_again_too(engine: Engine, tmp_path: Path) -> None:
    bot = engine.sh(FORGETFUL, work_directory=str(tmp_path))
    bot.drain()
    report = bot.wait(SOON_S)
    assert (report.reason, report.exit_code) == ("exited", 3)


@pytest.mark.parametrize("drain", [True, False])
def test_a_bot_that_does_not_is_told_once(engine: Engine, tmp_path: Path, drain: bool) -> None:
    bot = engine.sh(COUNTS, work_directory=str(tmp_path))
    bot.drain() if drain else bot.terminate(SOON_S)
    assert bot.wait(SOON_S).exit_code == 1


def test_a_command_is_told_once_whatever_it_executes(engine: Engine) -> None:
    bot = engine.sh(FORGETFUL)
    bot.terminate(3)
    assert bot.wait(SOON_S).reason == "killed-after-grace"
