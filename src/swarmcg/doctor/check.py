"""A verdict on one property of a host."""

from typing import Literal

import msgspec

__all__ = ["Check", "State", "fail", "ok", "warn"]

State = Literal["ok", "warn", "fail"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``swarmcg doctor``.

    ``fail``: bots cannot be started here, or a promise would be broken. ``warn``: they can, and something is
    lacking. ``why`` says what was found and what it means; ``remedy`` is the command or setting that mends it, None
    when there is nothing to mend, or nothing that would.
    """

    check: str
    state: State
    why: str
    remedy: str | None = None


def ok(check: str, why: str) -> Check:
    """All is well."""
    return Check(check=check, state="ok", why=why)


def warn(check: str, why: str, remedy: str | None = None) -> Check:
    """Something is lacking; bots can be started."""
    return Check(check=check, state="warn", why=why, remedy=remedy)


def fail(check: str, why: str, remedy: str | None = None) -> Check:
    """No bot should be started here."""
    return Check(check=check, state="fail", why=why, remedy=remedy)
