"""A keeper process: it takes orders and tells events, and neither waits for the other."""

import os
import signal
from collections import Counter
from typing import Any

from swarmcg.keeper.spawn import Order
from swarmcg.supervisor.keepers import RemoteKeeper

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
