"""Who may command the bots unit."""

import os

import pytest

from swarmcg.supervisor.host import may_command


@pytest.mark.parametrize(
    ("ours", "theirs", "allowed"), [(0, 0, True), (7, 7, True), (7, 0, True), (0, 7, False), (7, 8, False)]
)
def test_root_and_the_unit_s_own_user_may(
    monkeypatch: pytest.MonkeyPatch, ours: int, theirs: int, *, allowed: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: ours)
    assert may_command(theirs) is allowed
