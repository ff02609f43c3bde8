"""What becomes of what ``swarmcg clean --yes`` ends: slices without an owner, and detached bots of the unit."""

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from swarmcg.bot import ExitReport
from swarmcg.cli.complaint import complain
from swarmcg.cli.tables import table
from swarmcg.errors import ConfigError, OwnerLostError, StuckError, SwarmcgError, from_dict, printable
from swarmcg.keeper.wire import Wire
from swarmcg.supervisor.incarnation import Incarnation
from swarmcg.supervisor.supervisor import Supervisor

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Detached", "Ender", "not_detached"]

_SHOWN: Final = 16


def not_detached(wanted: str, detached: Sequence[str], *, foreground: bool, unit: bool) -> ConfigError:
    """Why nothing was ended for this id or incarnation; ``detached`` are the ids that might have been meant."""
    more = f" and {len(detached) - _SHOWN} more" if len(detached) > _SHOWN else ""
    if foreground:
        cause = "it runs in the foreground of the command or program that started it"
    elif not unit:
        cause = "there is no bots unit here, so nothing runs detached"
    elif detached:
        cause = f"these do: {', '.join(map(printable, detached[:_SHOWN]))}{more}"
    else:
        cause = "no bot of the bots unit does"
    return ConfigError(
        "No bot of this id runs detached",
        value=wanted,
        cause=cause,
        remedy="End that process with SIGTERM: it ends its bot."
        if foreground
        else "Give the id or the incarnation of a bot that was started with --detach.",
    )


class Detached:
    """The bots of the unit that are to end: it ends them, and tells what became of them."""

    def __init__(
        self, unit: Wire, ids: list[str] | None, grace: float | None, ender: "Ender", supervisor: Supervisor
    ) -> None:
        self.done = False
        self.unknown: Final[dict[str, list[str]]] = {}
        """Ids and incarnations under which nothing runs detached, each with the ids under which something does."""
        self._unit: Final = unit
        self._ids: Final = ids
        self._ender: Final = ender
        self._poll: Final = supervisor.poll
        self.order(grace)
        supervisor.poll.watch(unit.fileno(), self._hear)

    def order(self, grace: float | None) -> None:
        """Has them ended, or their grace periods cut short."""
        self._unit.send({"do": "end", "ids": self._ids, "grace": grace})

    def _hear(self) -> None:
        for message, _ in self._unit.receive():
            if message["event"] == "ended":
                self._ender.note(
                    message["slice"], msgspec.convert(message["report"], ExitReport), message["trouble"]
                )
            elif message["event"] == "unknown":
                self.unknown.update(dict.fromkeys(message["ids"], message["detached"]))
            elif message["event"] == "stuck":
                self._ender.add(message["slice"])
                complain(from_dict(message["error"]))
            else:
                self.done = True
        if self._unit.ended and not self.done:
            self.done = True
            raise OwnerLostError(
                "The bots unit hung up before all detached bots had ended",
                cause="the process that serves it was killed",
                remedy="Call it again: another one has taken over.",
            )


class Ender:
    """What became of the slices that were taken over. A Listener."""

    def __init__(self) -> None:
        self._paths: Final[list[str]] = []
        self._reports: Final[dict[str, ExitReport]] = {}

    def add(self, path: str) -> None:
        """This slice was taken over."""
        self._paths.append(path)

    def note(self, path: str, report: ExitReport, trouble: dict[str, Any] | None) -> None:
        """A bot of the unit has ended."""
        if path not in self._paths:
            self.add(path)
        self._reports[path] = report
        if trouble is not None:
            complain(from_dict(trouble))

    def started(self, bot: Incarnation) -> None:
        """See Listener."""

    def failed(self, bot: Incarnation, error: SwarmcgError) -> None:
        """See Listener."""

    def ended(self, bot: Incarnation, report: ExitReport, trouble: SwarmcgError | None) -> None:
        """See Listener."""
        self._reports[bot.slice.path] = report
        if trouble is not None:
            complain(trouble)

    def stuck(self, bot: Incarnation, error: StuckError) -> None:
        """See Listener."""
        if bot.given_up:
            complain(error)

    def tell(self) -> int:
        """Prints what was done; the exit status."""
        if self._paths:
            head = ("ID", "INCARNATION", "REASON", "KILLED", "NOW", "SLICE")
            table(head, map(self._cells, self._paths), sys.stdout)
        return int(any(map(os.path.exists, self._paths)))

    def _cells(self, path: str) -> tuple[str, ...]:
        now = "still there" if os.path.exists(path) else "removed"
        report = self._reports.get(path)
        if report is None:
            return "?", "?", "?", "?", now, path
        killed = str(report.leftovers.count)
        return report.bot_id, report.incarnation, report.reason, killed, now, path
