"""What a keeper bequeaths arrives whole, or as far as the keeper came before it was killed."""

import os
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


def bequeath(keeper: Wire, *directories: Path) -> None:
    for directory in directories:
        fd = os.open(directory, os.O_RDONLY)
        keeper.send({"event": "bequeathed", "key": directory.name, "path": str(directory)}, [fd])
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
    assert [held.path for held in slices] == list(map(str, places))
    assert [os.fstat(held.fd).st_ino for held in slices] == [place.stat().st_ino for place in places]
    assert note == {"unit": "u"}
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in fds] == [os.devnull]
    for held in slices:
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
    assert ([held.path for held in slices], note, fds) == ([str(tmp_path)], {}, [])
    slices[0].close()
