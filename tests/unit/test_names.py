"""From ids to directory names: one to one, and safe everywhere."""

import re
import string

import pytest
from hypothesis import given, strategies as st

from swarmcg.cgroup.names import is_slice_name, new_incarnation, readable, slice_name

IDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
    lambda text: len(text.encode()) <= 200
)
NEAR = st.text(st.sampled_from("aA0.-_/\n ~é"), min_size=1, max_size=70)
SAFE = set(string.ascii_lowercase + string.digits + ".-_")
INCARNATION = "0123456789abcdef"


@given(IDS | NEAR)
def test_a_name_is_safe_on_every_file_system(bot_id: str) -> None:
    name = slice_name(bot_id, INCARNATION)
    assert set(name) <= SAFE
    assert len(name) <= 255
    assert name[0] not in ".-" or not name.startswith("..")
    assert name not in {".", ".."}
    assert not re.search(r"\.(slice|service|scope|socket|mount)$", name)
    assert is_slice_name(name)


@given(IDS | NEAR, IDS | NEAR)
def test_different_ids_have_different_names_also_where_case_is_folded(one: str, other: str) -> None:
    if one != other:
        assert readable(one).casefold() != readable(other).casefold()


@given(NEAR)
def test_case_alone_makes_another_name(bot_id: str) -> None:
    if bot_id.upper() != bot_id.lower():
        assert readable(bot_id.upper()).casefold() != readable(bot_id.lower()).casefold()


@pytest.mark.parametrize("bot_id", ["bot-1", "build12-a9--device3", "a.b.c", "x", "0" * 64])
def test_a_usual_id_is_to_be_read_as_it_is(bot_id: str) -> None:
    assert readable(bot_id) == bot_id


@pytest.mark.parametrize(
    "bot_id", ["..", ".", "/", "../etc", "a/b", "a\nb", "-x", "x.", "A", "a_b", "0" * 65, "ß", "\x7f"]
)
def test_an_unusual_id_gets_a_hash(bot_id: str) -> None:
    assert re.fullmatch(r"[a-z0-9-]*_[0-9a-f]{32}", readable(bot_id))


def test_no_usual_id_can_take_the_name_of_an_unusual_one() -> None:
    assert readable(readable("A")) != readable("A")


def test_the_readable_part_of_an_unusual_id_is_a_hint() -> None:
    assert readable("Build12 Device3").startswith("build12-device3_")


@pytest.mark.parametrize(
    "name",
    [
        "cpu.max",
        "cgroup.procs",
        "main",
        "probe.123",
        "init.scope",
        "",
        "a.0123",
        "a.0123456789ABCDEF",
        "a/b.0123456789abcdef",
    ],
)
def test_what_is_not_ours_is_not_taken_for_a_slice(name: str) -> None:
    assert not is_slice_name(name)


def test_incarnations_are_sixteen_hexadecimal_digits_and_new_each_time() -> None:
    made = {new_incarnation() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in made)
