"""What is still to be done after a bot's end: a report that could not be made yet, a slice that still has to go, and
the tidying behind it. Each has a deadline: of most of what is waited for the kernel tells nothing.
"""

import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from swarmcg.bot import ExitReport
from swarmcg.cgroup.files import cgroup_errors
from swarmcg.cgroup.home import Home
from swarmcg.errors import CgroupError, StateError, SwarmcgError
from swarmcg.flock import WITHIN_S
from swarmcg.report_file import write_report
from swarmcg.supervisor.incarnation import Incarnation

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Aftercare"]

_LOG: Final = logging.getLogger("swarmcg")
_REMOVALS: Final = 100
_REMOVE_AGAIN_S: Final = 0.05
_FINISH_AGAIN_S: Final = 1.0
_TIDY_S: Final = 0.1
"""How long what is left of ended bots may wait, so that starts in a row need not wait for that. A home that could not
be settled is settled again after twice the pause of before.
"""
_SETTLINGS: Final = 11
"""So often it is tried: over 102 s."""


class Aftercare:
    """What one supervisor has still to do after the ends of its bots. For its thread, and for nobody but that
    supervisor: it calls :meth:`act` when something is ``due``, and :meth:`close` at last.

    ``gone`` is called once for each bot that :meth:`remove` or :meth:`leave` was given, when nothing more becomes of
    its slice here; ``forget`` tells the keeper, by the bot's key, that the slice is gone. Neither may raise.
    """

    def __init__(
        self,
        home: Home,
        *,
        gone: Callable[[Incarnation, ExitReport, SwarmcgError | None], None],
        forget: Callable[[str], None],
    ) -> None:
        self._home: Final = home
        self._gone: Final = gone
        self._forget: Final = forget
        self._later: list[_Later] = []
        self._untidied: Final[list[str]] = []
        self._tidy_at: float | None = None
        self._unsettled = False
        self._settlings = 0

    @property
    def due(self) -> float | None:
        """When :meth:`act` must be called, on the monotonic clock; None for never."""
        dues = [later.due for later in self._later]
        return min(dues if self._tidy_at is None else [*dues, self._tidy_at], default=None)

    def act(self) -> None:
        """Does what is due. Waits for nobody's lock, and what goes wrong for one bot keeps no other from its turn."""
        now = time.monotonic()
        ready = [later for later in self._later if later.due <= now]
        self._later = [later for later in self._later if later.due > now]
        for later in ready:
            later.act()
        if self._tidy_at is not None and self._tidy_at <= now:
            self._tidy()

    def close(self) -> None:
        """Tidies now, for the last time, and waits for the home's lock if need be. What else is due stays as it is:
        such slices are found by clean, as any without an owner.
        """
        self._tidy(WITHIN_S)

    def finish_again(self, bot: Incarnation, finish: Callable[[Incarnation], None]) -> None:
        """The report could not be made, for want of descriptors say: tries ``finish`` again until it can."""
        self._do_later(_FINISH_AGAIN_S, lambda: bot.contained(functools.partial(finish, bot)))

    def remove(self, bot: Incarnation, report: ExitReport) -> None:
        """The journal has the report: hands over the copy that was asked for, and removes the slice."""
        self._remove(_Removal(bot, report, _hand_over(bot, report)))

    def leave(self, bot: Incarnation, report: ExitReport, trouble: SwarmcgError) -> None:
        """Lets the slice be: without an owner it is found by clean, which reports again."""
        bot.slice.close()
        self._end(bot, report, trouble)

    def prepared(self) -> None:
        """The home was made for a start, which may yet be refused: it is settled with the next tidying."""
        self._unsettled = True

    def settle(self) -> None:
        """A slice is gone without any more to be done for its bot: settles the home. What cannot be done now is tried
        again by :meth:`act`, a while later each time, and in the end left to whoever comes next.
        """
        self._settlings = 0
        self._settle(0)

    def _do_later(self, pause: float, act: Callable[[], None]) -> None:
        self._later.append(_Later(time.monotonic() + pause, act))

    def _remove(self, removal: "_Removal", tries: int = 1) -> None:
        """Removes the slice; where somebody came in by another's hand, kills and tries again for a while."""
        bot, report, trouble = removal
        try:
            with cgroup_errors("The slice could not be removed", bot.slice.path):
                # This thread has other bots: it comes again rather than wait for a lock.
                bot.slice.remove(within=0)
        except CgroupError as e:
            if tries >= _REMOVALS:
                self.leave(bot, report, e)
                return
            with contextlib.suppress(OSError):
                bot.slice.kill()
            self._do_later(_REMOVE_AGAIN_S, lambda: self._remove(removal, tries + 1))
            return
        if not self._home.ours:
            self.settle()  # at once: whoever made it may remove it as soon as the end is told
        self._end(bot, report, trouble)

    def _end(self, bot: Incarnation, report: ExitReport, trouble: SwarmcgError | None) -> None:
        self._gone(bot, report, trouble)  # first, since somebody waits for it
        self._untidied.append(bot.key)
        if self._home.ours:  # another's was settled at once
            self._unsettled, self._settlings = True, 0
        if trouble is None:
            self._tidy_in(_TIDY_S)
        else:
            self._tidy()  # who is to see to the slice must not find it held

    def _tidy_in(self, pause: float) -> None:
        at = time.monotonic() + pause
        self._tidy_at = at if self._tidy_at is None else min(self._tidy_at, at)

    def _tidy(self, within: float = 0) -> None:
        """Slices are gone: their home may be empty, and their keeper still holds the directories. Should we be killed
        before both are dealt with, the keeper's heir does it.
        """
        self._tidy_at = None
        if self._unsettled:
            self._settle(within)
        for key in self._untidied:
            self._forget(key)
        self._untidied.clear()

    def _settle(self, within: float) -> None:
        self._unsettled = not self._home.settle(within)
        if not self._unsettled:
            return
        self._settlings += 1
        if self._settlings < _SETTLINGS:
            self._tidy_in(_TIDY_S * 2 ** (self._settlings - 1))
        else:
            _LOG.warning(
                "home %s: what an end left there cannot be tidied up; the next one will try", self._home.path
            )


class _Later(NamedTuple):
    due: float
    act: Callable[[], None]


class _Removal(NamedTuple):
    """A slice that was reported and is still to be removed."""

    bot: Incarnation
    report: ExitReport
    trouble: StateError | None


def _hand_over(bot: Incarnation, report: ExitReport) -> StateError | None:
    """Writes the copy that was asked for. The journal has the report already, so no slice is kept for it."""
    if bot.intent.report_file is None:
        return None
    try:
        write_report(bot.intent.report_file, report)
    except StateError as e:
        return e
    return None
