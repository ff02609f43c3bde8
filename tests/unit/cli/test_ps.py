"""The one word that `swarmcg ps` has for the state of a bot."""

import errno
from collections.abc import Callable

import pytest

from swarmcg.cgroup.home import Home
from swarmcg.cli import ps
from swarmcg.cli.ps import state
from swarmcg.errors import HomeError


@pytest.mark.parametrize(
    ("owned", "stopping", "frozen", "draining", "word"),
    [
        (True, False, False, False, "running"),
        (True, False, False, True, "draining"),
        (True, False, True, True, "frozen"),
        (True, True, True, True, "stopping"),  # a stop freezes the slice for a moment
        (False, True, True, True, "ownerless"),
        (False, False, False, False, "ownerless"),
        (None, False, False, False, "unknown"),
        (None, False, False, True, "unknown"),
        (None, True, False, False, "stopping"),
        (None, False, True, False, "frozen"),
    ],
)
def test_the_state_that_decides_what_to_do_comes_first(
    *, owned: bool | None, stopping: bool, frozen: bool, draining: bool, word: str
) -> None:
    assert state(owned=owned, stopping=stopping, frozen=frozen, draining=draining) == word


def refusing(number: int | None) -> Callable[[str | None], list[Home]]:
    def refuse(_: str | None) -> list[Home]:
        raise HomeError("No cgroup", errno=number)

    return refuse


def test_a_user_without_a_delegated_cgroup_has_no_bots(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ps, "inhabited", refusing(errno.EACCES))
    assert ps.main(["--json"]) == 0
    said = capsys.readouterr()
    assert said.out == "[]\n"
    assert "no cgroup is delegated to this user" in said.err


@pytest.mark.parametrize(
    ("words", "number"), [(["--home", "/x"], errno.EACCES), ([], errno.EROFS), ([], None)]
)
def test_what_else_keeps_ps_from_looking_is_an_error(
    monkeypatch: pytest.MonkeyPatch, words: list[str], number: int | None
) -> None:
    monkeypatch.setattr(ps, "inhabited", refusing(number))
    with pytest.raises(HomeError):
        ps.main(words)
