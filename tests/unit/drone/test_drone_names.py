"""How ids are abbreviated, and that any id gives one safe name."""

import os
import re

import pytest
from hypothesis import given, strategies as st

from swarmcg.bot import MAX_BOT_ID_BYTES
from swarmcg.drone import abbreviate_bot_id
from swarmcg.drone.names import is_directory_name, new_directory_name

IDS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1).filter(
    lambda text: len(text.encode()) <= MAX_BOT_ID_BYTES
)
NASTY = [
    "/",
    "..",
    ".",
    "../../etc/passwd",
    "-",
    "--",
    "bot 1",
    "ботик-17",
    "a\nb",
    "x" * 200,
    "😀" * 50,
    "CON",
    "~",
]


@pytest.mark.parametrize(
    ("bot_id", "short"),
    [
        ("chromeos256-column8888", "c256-c8888"),
        ("14a", "14a"),
        ("e1-a14-b18a-c17zz", "e1-a14-b18a-c"),
        ("chromeos6-row2-rack3-host14", "c6-r2-r3-h14"),
        ("14a-bot", "14a-b"),
        ("14ab-bot", "1-b"),
        ("bot", "bot"),
        ("a_bot_with_a_long_name_and_no_dash", "a_bot_with_a_long_na"),
        ("-", "-"),
        ("a--b", "a--b"),
        ("-lead2", "-l2"),
        ("1-2-3-4-5-6-7-8-9-10-11-12", "1-2-3-4-5-6-7-8-9-10"),
        ("x1y2-z", "x2-z"),
        ("a²-b", "a-b"),  # a digit elsewhere, none that an id is numbered with
        ("", ""),
    ],
)
def test_an_id_is_abbreviated_to_20_characters(bot_id: str, short: str) -> None:
    assert abbreviate_bot_id(bot_id) == short


@pytest.mark.parametrize(
    ("length", "short"),
    [(4, "c256"), (1, "c"), (10, "c256-c8888"), (100, "c256-c8888"), (0, "c256-c8888"), (-1, "c256-c8888")],
)
def test_the_length_can_be_told_and_0_is_no_cut(length: int, short: str) -> None:
    assert abbreviate_bot_id("chromeos256-column8888", length) == short


def test_an_id_without_a_dash_is_only_cut() -> None:
    assert abbreviate_bot_id("x" * 30, 0) == "x" * 30
    assert abbreviate_bot_id("chromeos256", 0) == "chromeos256"


@given(IDS, st.integers(-3, 40))
def test_an_abbreviation_is_never_longer_than_asked_or_than_the_id(bot_id: str, length: int) -> None:
    short = abbreviate_bot_id(bot_id, length)
    whole = abbreviate_bot_id(bot_id, 0)
    assert whole.startswith(short)
    assert len(short) == (min(length, len(whole)) if length > 0 else len(whole))
    assert whole.count("-") == bot_id.count("-")


@given(IDS)
def test_abbreviating_twice_changes_nothing_more(bot_id: str) -> None:
    whole = abbreviate_bot_id(bot_id, 0)
    assert abbreviate_bot_id(whole, 0) == whole


@given(IDS)
def test_any_id_gives_one_short_name(bot_id: str) -> None:
    check(new_directory_name(bot_id))


@pytest.mark.parametrize("bot_id", NASTY)
def test_nasty_ids_give_one_short_name(bot_id: str) -> None:
    check(new_directory_name(bot_id))


def check(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.[a-z2-7]{8}", name)
    assert len(name.encode()) <= 29
    assert os.path.basename(name) == name
    assert is_directory_name(name)


def test_a_usual_id_stays_readable_and_no_name_is_given_twice() -> None:
    names = {new_directory_name("chromeos256-column8888") for _ in range(1000)}
    assert len(names) == 1000
    assert all(name.startswith("c256-c8888.") for name in names)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "cipd_cache", "bot-1", "bot-1.log", "b/c.abcdefgh", "b.abcdefg", ".abcdefgh"]
)
def test_other_names_are_not_ours(name: str) -> None:
    assert not is_directory_name(name)
