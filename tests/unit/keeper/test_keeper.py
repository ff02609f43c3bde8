"""A keeper that meets a limit of the kernel tells one failure, and keeps nothing of the child."""

import errno
import os
from typing import Any

from swarmcg.keeper.keeper import Keeper
from swarmcg.keeper.spawn import Order


class FullEpoll:
    """An epoll at the limit of its user's watches (epoll(7), max_user_watches)."""

    def register(self, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def poll(self, _: float) -> list[tuple[int, int]]:
        return []

    def close(self) -> None:
        pass


def test_a_child_that_cannot_be_watched_is_ended_and_forgotten() -> None:
    told: list[dict[str, Any]] = []
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    keeper = Keeper(lambda event, _: told.append(event))
    epoll, keeper._epoll = keeper._epoll, FullEpoll()  # type: ignore[assignment]
    before = os.listdir("/proc/self/fd")
    try:
        keeper.spawn("bot", Order(["/bin/true"], {}, procs=null, stdio=(null, null, null)), None)
        assert [(event["event"], event["step"], event["errno"]) for event in told] == [
            ("failed", "keep", errno.ENOSPC)
        ]
        assert os.listdir("/proc/self/fd") == before
        assert (len(keeper), keeper.pidfd("bot"), keeper._watched) == (0, None, {})
    finally:
        os.close(null)
        keeper.close()
        epoll.close()
