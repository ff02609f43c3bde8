"""Connections to the bots unit, against a unit that does as the test says."""

import socket
import threading
from collections.abc import Iterator

import pytest

from swarmcg.errors import OwnerLostError
from swarmcg.keeper.wire import Wire
from swarmcg.supervisor import client
from swarmcg.supervisor.client import UnitConnection
from swarmcg.supervisor.launch import Launch

SOON_S = 20.0


@pytest.fixture
def unit() -> Iterator[tuple[UnitConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(SOON_S)
    connection = UnitConnection(Wire(ours))
    with theirs:
        yield connection, theirs
    connection.close(timeout=0)


def closing(connection: UnitConnection, theirs: socket.socket) -> threading.Thread:
    """A thread that closes the connection, and has begun to wait for the other end."""
    thread = threading.Thread(target=connection.close, kwargs={"timeout": SOON_S})
    thread.start()
    assert theirs.recv(1) == b""
    return thread


def test_a_close_waits_until_the_unit_hangs_up(unit: tuple[UnitConnection, socket.socket]) -> None:
    connection, theirs = unit
    thread = closing(connection, theirs)
    Wire(theirs).send({"event": "of no matter"})
    assert thread.is_alive()
    theirs.close()
    thread.join(SOON_S)
    assert not thread.is_alive()


def test_other_threads_are_not_kept_waiting_by_a_close(unit: tuple[UnitConnection, socket.socket]) -> None:
    connection, theirs = unit
    thread = closing(connection, theirs)
    assert connection.alive
    with pytest.raises(OwnerLostError):
        connection.reserve().start(Launch(bot_id="late"), ["true"], {}, cwd=None, stdio=(0, 1, 2))
    assert connection.idle
    assert thread.is_alive()
    theirs.close()
    thread.join(SOON_S)
    connection.close()  # a second time changes nothing


def test_a_close_without_a_timeout_has_a_bound(
    unit: tuple[UnitConnection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FREEZE_S", "KILL_S", "_REPORT_S"):
        monkeypatch.setattr(client, name, 0.02)
    connection, _ = unit
    connection.close()
    assert not connection.alive
