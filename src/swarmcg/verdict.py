"""Why a bot ended: pure, from what was seen of its end."""

import msgspec

from swarmcg.bot import Evidence, Reason

__all__ = ["End", "reason"]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen. ``observed`` says that the exit status is known; ``oom`` is the proven out-of-memory
    verdict, if any.

    ``terminated`` and ``grace_over`` say that terminate had begun, and that we had killed after the grace
    period, before the main process ended.
    """

    started: bool
    observed: bool
    signal: int | None = None
    terminated: bool = False
    grace_over: bool = False
    oom: tuple[Reason, Evidence] | None = None


def reason(end: End) -> tuple[Reason, Evidence]:
    """The first reason that applies, with the evidence for it."""
    if not end.started:
        return "start-interrupted", "none"
    if not end.observed:
        return "unobserved", "none"
    if end.oom is not None:
        return end.oom
    if end.grace_over:
        return "killed-after-grace", "none"
    if end.terminated:
        return "terminated", "none"
    return ("exited" if end.signal is None else "signaled"), "none"
