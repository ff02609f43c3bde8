"""Where things are kept."""

import os

import pytest

from swarmcg.places import Places, places

VARIABLES = [
    f"{prefix}_{kind}{suffix}"
    for prefix, kinds, suffix in [
        ("SWARMCG", ("STATE", "RUNTIME", "CACHE"), "_DIR"),
        ("XDG", ("STATE", "CACHE"), "_HOME"),
    ]
    for kind in kinds
] + ["XDG_RUNTIME_DIR"]


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def test_root_s_places(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, 0)
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert places() == Places("/var/lib/swarmcg", "/run/swarmcg", "/var/cache/swarmcg")
    assert places().reports == "/var/lib/swarmcg/reports.jsonl"


def test_a_user_s_places_are_those_of_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, 1000)
    for kind in ("STATE_HOME", "RUNTIME_DIR", "CACHE_HOME"):
        monkeypatch.setenv(f"XDG_{kind}", f"/x/{kind}")
    assert places() == Places("/x/STATE_HOME/swarmcg", "/x/RUNTIME_DIR/swarmcg", "/x/CACHE_HOME/swarmcg")


def test_without_xdg_they_are_in_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, 1000)
    monkeypatch.setenv("HOME", "/home/one")
    assert places().state == "/home/one/.local/state/swarmcg"
    assert places().cache == "/home/one/.cache/swarmcg"
    assert places().runtime == "/tmp/swarmcg-1000"


def test_a_relative_xdg_directory_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG base directory specification has it."""
    as_user(monkeypatch, 1000)
    monkeypatch.setenv("HOME", "/home/one")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert places().state == "/home/one/.local/state/swarmcg"


@pytest.mark.parametrize("uid", [0, 1000])
def test_what_is_told_overrides_all(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    as_user(monkeypatch, uid)
    for kind in ("STATE", "RUNTIME", "CACHE"):
        monkeypatch.setenv(f"SWARMCG_{kind}_DIR", f"/told/{kind}")
    assert places() == Places("/told/STATE", "/told/RUNTIME", "/told/CACHE")


def test_a_relative_place_is_made_absolute_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMCG_STATE_DIR", "here")
    assert places().state == os.path.abspath("here")
