"""What a keeper bequeaths arrives whole, or as far as the keeper came before it was killed."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcg.keeper.wire import Wire
from swarmcg.supervisor import heir


@pytest.fixture
def wires() -> Iterator[tuple[Wire, Wire]]:
    """The keeper's end and the heir's."""
    keeper, ours = (Wire(end) for end in socket.socketpair())
    yield keeper, ours
    keeper.close()
    ours.close()


def bequeath(keeper: Wire, *directories: Path, child: bool = False) -> None:
    for directory in directories:
        fds = [os.open(directory, os.O_RDONLY)] + ([os.pidfd_open(os.getpid())] if child else [])
        message = {"event": "bequeathed", "key": directory.name, "path": str(directory), "child": child}
        keeper.send(message, fds)
        for fd in fds:
            os.close(fd)


def test_slices_note_and_descriptors_come_with_the_last_word(
    wires: tuple[Wire, Wire], tmp_path: Path
) -> None:
    keeper, ours = wires
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:
        place.mkdir()
    bequeath(keeper, *places)
    keeper.send({"event": "ended", "key": "a"})  # told to whom it may concern: the slice says the same
    kept = os.open(os.devnull, os.O_RDONLY)
    keeper.send({"event": "bequeathed all", "note": {"unit": "u"}}, [kept])
    os.close(kept)
    slices, note, fds = heir.bequest(ours)
    assert [(held.path, pidfd) for held, pidfd in slices] == [(str(place), None) for place in places]
    assert [os.fstat(held.fd).st_ino for held, _ in slices] == [place.stat().st_ino for place in places]
    assert note == {"unit": "u"}
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in fds] == [os.devnull]
    for held, _ in slices:
        held.close()
    for fd in fds:
        os.close(fd)


def test_a_keeper_that_dies_in_between_leaves_what_it_had_handed_over(
    wires: tuple[Wire, Wire], tmp_path: Path
) -> None:
    keeper, ours = wires
    bequeath(keeper, tmp_path)
    keeper.close()
    slices, note, fds = heir.bequest(ours)
    assert ([held.path for held, _ in slices], note, fds) == ([str(tmp_path)], {}, [])
    slices[0].held.close()


def test_a_main_process_that_is_not_reaped_comes_with_its_slice(
    wires: tuple[Wire, Wire], tmp_path: Path
) -> None:
    keeper, ours = wires
    bequeath(keeper, tmp_path, child=True)
    keeper.send({"event": "bequeathed all", "note": {}})
    ((held, pidfd),) = heir.bequest(ours)[0]
    assert pidfd is not None
    signal.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)
    held.close()


def test_an_older_keeper_says_nothing_of_main_processes(wires: tuple[Wire, Wire], tmp_path: Path) -> None:
    keeper, ours = wires
    fd = os.open(tmp_path, os.O_RDONLY)
    keeper.send({"event": "bequeathed", "key": "a", "path": str(tmp_path)}, [fd])
    os.close(fd)
    keeper.close()
    ((held, pidfd),) = heir.bequest(ours)[0]
    assert pidfd is None
    held.close()


def test_a_keeper_that_hands_nothing_over_is_not_waited_for_for_ever(
    wires: tuple[Wire, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heir, "_BEQUEST_S", 0.05)
    with pytest.raises(TimeoutError):
        heir.bequest(wires[1])
