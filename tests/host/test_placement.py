"""Every process of a bot is in its slice from its first instruction on."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.host.engine import ENV, Engine, compiled, in_slice, marked, slices

ROUNDS: Final = int(os.environ.get("SWARMCG_ROUNDS", "50"))
GRANDCHILDREN: Final = 200
SCRIPT: Final = (
    f"i=0; while [ $i -lt {GRANDCHILDREN} ]; do (sleep 1000 &) ; i=$((i+1)); done; echo ready; sleep 1000"
)


@pytest.fixture
def engine(home: str, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


@pytest.mark.hostile
def test_grandchildren_forked_by_the_first_instruction_are_all_inside(
    engine: Engine, home: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = compiled("grandchildren", tmp_path_factory.getbasetemp())
    argv = [program, str(GRANDCHILDREN)] if program else ["/bin/sh", "-c", SCRIPT]
    inside = outside = survivors = 0
    for _ in range(ROUNDS):
        mark = f"SWARMCG_MARK={secrets.token_hex(8)}"
        bot = engine.start(*argv, ready=True, env=ENV | dict([mark.split("=")]))
        where = marked(mark)
        inside += sum(in_slice(place, bot.slice) for place in where.values())
        outside += sum(not in_slice(place, bot.slice) for place in where.values())
        bot.terminate_or_kill(0)
        survivors += len(marked(mark))
    print(f"{ROUNDS} rounds: {inside} processes inside, {outside} outside, {survivors} survived the kill")
    assert (inside, outside, survivors) == (ROUNDS * (GRANDCHILDREN + 1), 0, 0)
    assert slices(home) == []


def test_a_bot_is_born_in_a_session_of_its_own_with_default_signals_and_three_descriptors(
    engine: Engine,
) -> None:
    bot = engine.start("sleep", "1000")
    status = Path(f"/proc/{bot.pid}/status").read_text()
    masks = dict(
        line.split(":\t") for line in status.splitlines() if line.startswith("Sig") and "Q" not in line
    )
    assert {name: int(mask, 16) for name, mask in masks.items()} == dict.fromkeys(masks, 0)
    assert len(masks) == 4
    assert os.getsid(bot.pid) == bot.pid
    assert sorted(os.listdir(f"/proc/{bot.pid}/fd")) == ["0", "1", "2"]


def test_the_environment_arrives_whole_even_where_it_is_no_text(engine: Engine) -> None:
    odd = ENV | {"BYTES": os.fsdecode(b"\xff\xfe"), "a b": "x=y", "NEWLINE": "1\n2", "EMPTY": ""}
    bot = engine.start("sleep", "1000", env=odd)
    there = Path(f"/proc/{bot.pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    assert sorted(there) == sorted(
        f"{name}={value}".encode(errors="surrogateescape") for name, value in odd.items()
    )


def test_two_bots_of_one_id_live_in_slices_of_their_own(engine: Engine, home: str) -> None:
    first, second = (engine.start("sleep", "1000", bot_id="same") for _ in range(2))
    assert first.slice != second.slice
    assert slices(home) == sorted(map(os.path.basename, (first.slice, second.slice)))
    first.terminate_or_kill(0)
    assert slices(home) == [os.path.basename(second.slice)]


@pytest.mark.parametrize(
    "bot_id", ["..", "/", "../../x", "a\nb", "UPPER", "Ünï", "\x1b[31m", "x" * 200, "cpu.max"]
)
def test_an_odd_id_stays_in_the_home_and_comes_back_whole(engine: Engine, home: str, bot_id: str) -> None:
    bot = engine.start("true", bot_id=bot_id)
    assert os.path.dirname(bot.slice) == os.path.realpath(home)
    assert bot.wait(30).bot_id == bot_id
    assert slices(home) == []
