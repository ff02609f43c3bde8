"""One epoll: handlers are called while they are watched, and never for another's descriptor."""

import os
from collections.abc import Iterator

import pytest

from swarmcg.supervisor.poll import Poll


@pytest.fixture
def poll() -> Iterator[Poll]:
    made = Poll()
    yield made
    made.close()


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    made = [os.pipe() for _ in range(2)]
    yield made
    for pair in made:
        for fd in pair:
            os.close(fd)


def test_a_handler_is_called_while_its_descriptor_is_ready(poll: Poll, pipes: list[tuple[int, int]]) -> None:
    (read, write), _ = pipes
    calls: list[bytes] = []
    poll.watch(read, lambda: calls.append(os.read(read, 10)))
    poll.turn(0)
    assert calls == []
    os.write(write, b"x")
    poll.turn(1)
    poll.turn(0)
    assert calls == [b"x"]
    poll.ignore(read)


def test_what_an_earlier_handler_ignored_is_not_called_any_more(
    poll: Poll, pipes: list[tuple[int, int]]
) -> None:
    calls: list[int] = []

    def only(me: int, other: int) -> None:
        calls.append(me)
        poll.ignore(other)

    reads = [read for read, _ in pipes]
    poll.watch(reads[0], lambda: only(reads[0], reads[1]))
    poll.watch(reads[1], lambda: only(reads[1], reads[0]))
    for _, write in pipes:
        os.write(write, b"x")
    poll.turn(1)
    assert len(calls) == 1
