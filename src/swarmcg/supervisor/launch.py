"""What a supervisor is asked to start: a plain value that crosses a process boundary as JSON."""

import msgspec

from swarmcg.bot import GRACE_INTERVAL, Bandwidth, Drain, OnUnenforceable
from swarmcg.resources import LinuxResources

__all__ = ["Launch"]


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """One command to be started in a slice of its own.

    ``service`` starts it as a bot: session of its own, default signals; without it, it stays in the caller's
    session and terminal. ``detach`` lets it outlive whoever asked for it. ``report_file`` also gets the exit
    report. ``lenient`` names fields whose lack is reported under either policy. Text from the operating system
    (``argv``, ``env``, ``cwd``) may hold surrogate escapes, so it travels apart from this value.
    """

    bot_id: str
    resources: LinuxResources | None = None
    bandwidth: Bandwidth | None = None
    on_unenforceable: OnUnenforceable = "refuse"
    lenient: frozenset[str] = frozenset()
    grace: float = GRACE_INTERVAL
    drain: Drain = "sigterm"
    work_directory: str | None = None
    report_file: str | None = None
    service: bool = True
    detach: bool = False
