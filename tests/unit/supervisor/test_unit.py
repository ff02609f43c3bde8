"""Who may command the bots unit, and by whom it may be served."""

import errno
import os
import socket
import subprocess
from pathlib import Path

import pytest

from swarmcg.errors import HomeError
from swarmcg.supervisor import unit
from swarmcg.supervisor.unit import Unit, connect, credentials, may_command, no_unit


@pytest.mark.parametrize(
    ("ours", "theirs", "allowed"), [(0, 0, True), (7, 7, True), (7, 0, True), (0, 7, False), (7, 8, False)]
)
def test_root_and_the_unit_s_own_user_may(
    monkeypatch: pytest.MonkeyPatch, ours: int, theirs: int, *, allowed: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: ours)
    assert may_command(theirs) is allowed


def test_credentials_are_the_kernel_s() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert credentials(ours) == (os.getpid(), os.geteuid())


def test_nothing_is_told_to_another_user_who_listens_in_our_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As anybody can in /tmp, where a user without a runtime directory has its own."""
    place = Unit(directory=str(tmp_path), runtime=str(tmp_path), journal="")
    monkeypatch.setattr(unit, "credentials", lambda _: (1, os.geteuid() + 4711))
    monkeypatch.setattr(Unit, "served", lambda _: True)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(place.socket)
        stranger.listen()
        with pytest.raises(HomeError) as caught:
            connect(place)
        assert caught.value.errno == errno.EACCES
        with stranger.accept()[0] as taken:
            assert taken.recv(64) == b""


@pytest.mark.parametrize(
    ("systemd", "status", "cure"),
    [
        (False, 0, "systemd does not run here"),
        (True, 1, "Install swarmcg-bots.service"),
        (True, 0, "systemctl start swarmcg-bots"),
    ],
)
def test_the_way_to_a_unit_fits_the_host(
    monkeypatch: pytest.MonkeyPatch, status: int, cure: str, *, systemd: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os.path, "isdir", lambda _: systemd)
    done: subprocess.CompletedProcess[bytes] = subprocess.CompletedProcess([], status)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert (no_unit().remedy or "").startswith(cure)
