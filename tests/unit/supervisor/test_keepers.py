"""A keeper process: it takes orders and tells events, and neither waits for the other."""

import errno
import os
import signal
import sys
from collections import Counter
from typing import Any

import pytest

from swarmcg.errors import StartError
from swarmcg.keeper.spawn import Order
from swarmcg.supervisor.keepers import Pauses, RemoteKeeper

MANY = 450
"""A socket's buffer holds fewer than 300 events: each counts for 768 bytes at least."""
BOUND_S = 120


def test_a_keeper_takes_orders_from_an_owner_that_hears_nothing_meanwhile() -> None:
    told: Counter[str] = Counter()

    def tell(event: dict[str, Any], fds: list[int]) -> None:
        told[event["event"]] += 1
        for fd in fds:
            os.close(fd)

    def too_long(*_: object) -> None:
        raise TimeoutError("the keeper and its owner wait for each other")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(BOUND_S)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    keeper = RemoteKeeper(tell, lambda: None)
    try:
        for number in range(MANY):
            order = Order(
                ["/bin/true"],
                {"A": "x" * 4000},
                procs=null,
                cwd="/",
                stdio=(null, null, null),
                oom_score_adj=0,
            )
            keeper.spawn(str(number), order, None)
        while told["ended"] < MANY:
            keeper.dispatch()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        os.close(null)
        keeper.close()
    assert told == {"started": MANY, "ended": MANY}


def test_pauses_grow_to_half_a_minute_and_begin_anew_after_a_keeper_that_lived() -> None:
    pauses, now, seen = Pauses(), 1000.0, []
    for _ in range(12):
        seen.append(pauses.next(now))
        now += seen[-1]
    assert seen[:4] == [0, 0.1, 0.2, 0.4]
    assert seen == sorted(seen)
    assert seen[-1] == 30
    assert pauses.next(now + 61) == 0


def test_a_keeper_that_cannot_be_started_again_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = RemoteKeeper(lambda _, __: None, lambda: None)
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nonexistent")
        assert keeper.restart() is not None
        assert len(os.listdir("/proc/self/fd")) == before - 1
        with pytest.raises(StartError) as caught:
            keeper.spawn("bot", Order(["true"], {}, procs=-1, stdio=(0, 1, 2)), None)
        assert (caught.value.step, caught.value.errno, caught.value.path) == (
            "keeper",
            errno.ENOENT,
            "/nonexistent",
        )
        keeper.forget("bot")
        keeper.release()
    assert keeper.restart() is None
    keeper.close()
