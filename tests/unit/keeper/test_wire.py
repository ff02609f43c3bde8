"""Messages between swarmcg's own processes: whole, in order, with their descriptors."""

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given, strategies as st

from swarmcg.keeper.wire import Wire

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture
def ends() -> Iterator[tuple[Wire, Wire]]:
    one, other = map(Wire, socket.socketpair())
    yield one, other
    one.close()
    other.close()


def take(wire: Wire) -> list[tuple[dict[str, Any], list[int]]]:
    found: list[tuple[dict[str, Any], list[int]]] = []
    while not found and not wire.ended:
        found += wire.receive()
    return found


def all_of(wire: Wire) -> list[dict[str, Any]]:
    found = []
    while not wire.ended:
        found += [message for message, _ in wire.receive()]
    return found


@given(st.lists(st.dictionaries(st.text(max_size=8), JSON, max_size=4), max_size=8))
def test_what_is_sent_arrives_in_order(messages: list[dict[str, Any]]) -> None:
    one, other = map(Wire, socket.socketpair())
    for message in messages:
        one.send(message)
    one.close()
    assert all_of(other) == messages
    other.close()


def test_bytes_that_are_no_text_survive(ends: tuple[Wire, Wire]) -> None:
    odd = os.fsdecode(b"\xff\x00\xfe")
    ends[0].send({"argv": [odd], "env": {odd: odd}})
    assert take(ends[1])[0][0] == {"argv": [odd], "env": {odd: odd}}


def test_descriptors_travel_with_their_message(ends: tuple[Wire, Wire]) -> None:
    pipes = [os.pipe() for _ in range(3)]
    ends[0].send({"n": 0}, [pipes[0][0], pipes[1][0]])
    ends[0].send({"n": 1})
    ends[0].send({"n": 2}, [pipes[2][0]])
    got: list[tuple[dict[str, Any], list[int]]] = []
    while len(got) < 3:
        got += take(ends[1])
    assert [(message["n"], len(fds)) for message, fds in got] == [(0, 2), (1, 0), (2, 1)]
    received = [fd for _, fds in got for fd in fds]
    assert [os.fstat(fd).st_ino for fd in received] == [os.fstat(read).st_ino for read, _ in pipes]
    assert not any(os.get_inheritable(fd) for fd in received)
    for fd in [*received, *(end for pipe in pipes for end in pipe)]:
        os.close(fd)


def test_descriptors_that_nobody_took_are_closed_with_the_wire(ends: tuple[Wire, Wire]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    text = json.dumps({}).encode()
    head = struct.pack("!I", len(text) + 1 | 1 << 26)  # a byte of the message is missing
    socket.send_fds(ends[0]._socket, [head + text], [0])
    assert list(ends[1].receive()) == []
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    ends[1].close()
    assert len(os.listdir("/proc/self/fd")) == len(before) - 1


def test_a_message_that_comes_byte_by_byte_is_one_message() -> None:
    ours, theirs = socket.socketpair()
    wire = Wire(theirs)
    text = json.dumps({"a": "b"}).encode()
    whole = struct.pack("!I", len(text)) + text
    for n, byte in enumerate(whole):
        assert list(wire.receive()) == [], n
        ours.send(bytes([byte]))
    assert [message for message, _ in wire.receive()] == [{"a": "b"}]
    ours.close()
    wire.close()


def test_a_message_larger_than_any_buffer(ends: tuple[Wire, Wire]) -> None:
    large = {"env": {"X": "y" * 3_000_000}}
    read, write = os.pipe()
    sender = threading.Thread(target=ends[0].send, args=(large, [read]))
    sender.start()
    ((message, fds),) = take(ends[1])
    sender.join()
    assert message == large
    for fd in (read, write, *fds):
        os.close(fd)


def test_nothing_to_read_is_nothing_and_no_end(ends: tuple[Wire, Wire]) -> None:
    assert list(ends[1].receive()) == []
    assert not ends[1].ended


def test_the_peer_s_end_is_told_after_its_last_message(ends: tuple[Wire, Wire]) -> None:
    ends[0].send({"last": 1})
    ends[0].close()
    assert all_of(ends[1]) == [{"last": 1}]
    assert ends[1].ended


def test_sending_to_a_peer_that_is_gone_is_an_error(ends: tuple[Wire, Wire]) -> None:
    ends[1].close()
    with pytest.raises(BrokenPipeError):
        ends[0].send({})
    with pytest.raises(BrokenPipeError):
        ends[0].send({}, [0])


def test_no_child_inherits_it() -> None:
    ours, theirs = socket.socketpair()
    theirs.set_inheritable(True)
    wire = Wire(theirs)
    assert not os.get_inheritable(wire.fileno())
    wire.close()
    ours.close()


class Hasty:
    """A socket whose peer acts on a message as soon as it has all of it, and is gone then."""

    def __init__(self, ours: socket.socket, peer: socket.socket) -> None:
        self._ours, self._peer = ours, peer
        self.set_inheritable, self.fileno, self.close = ours.set_inheritable, ours.fileno, ours.close

    def sendmsg(self, *arguments: Any) -> int:
        sent = self._ours.sendmsg(*arguments)
        self._peer.close()
        return sent

    def sendall(self, text: bytes) -> None:
        self._ours.sendall(text)


def test_a_peer_that_is_gone_once_it_has_all_is_no_failure_of_the_sending() -> None:
    ours, peer = socket.socketpair()
    with open(os.devnull, "rb") as null:
        wire = Wire(cast("socket.socket", Hasty(ours, peer)))
        wire.send({"do": "start"}, [null.fileno()])
    wire.close()
