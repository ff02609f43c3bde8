"""DroneStarter: gives every start a work directory of its own, and takes those away again that nobody claims."""

import contextlib
import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from swarmcg.bot import Bot, Config, check_bot_id
from swarmcg.drone.names import is_directory_name, is_made_beside, new_directory_name
from swarmcg.drone.owner import Owner, is_alive, sweep_owners
from swarmcg.drone.records import Record, Records
from swarmcg.drone.removal import remove_tree
from swarmcg.errors import ConfigError, StateError, SwarmcgError
from swarmcg.places import places

if sys.platform == "linux":
    from swarmcg.supervisor.remains import work_directories as _claimed_by_slices
else:

    def _claimed_by_slices() -> frozenset[str]:
        """There are no slices."""
        return frozenset()


__all__ = ["DroneStarter"]

_LOG: Final = logging.getLogger("swarmcg")
_REMOVE_S: Final = 60.0
_SWEEP_AT_START_S: Final = 5.0


class DroneStarter:
    """Starts bots, each in a new work directory ``<working_dir>/<abbreviated id>.<random>``.

    ``make_config`` is given the id and that directory and returns the :class:`~swarmcg.Config`; ``start_bot`` is
    given the config and returns the :class:`~swarmcg.Bot`, as :meth:`swarmcg.Starter.start` does. ``log`` is given
    a line of text for what went wrong and stops nothing (None: the logger ``swarmcg``). ``working_dir`` must exist
    and should be at most 30 bytes long: the work directories then keep to the 60 bytes that Config allows. With a
    longer one :meth:`start` raises what ``start_bot`` does, for :meth:`swarmcg.Starter.start` ConfigError, as soon as a
    directory exceeds the config's ``work_directory_limit``.

    All bots share one CIPD cache: ``<work directory>/cipd_cache/cache`` is a link to ``<working_dir>/cipd_cache``.

    A work directory is recorded in the state directory before it is made, and removed with its log and drain file
    when its start fails, or later by :meth:`sweep`. Whatever is not recorded there is never touched,
    nor is what stands beside it under another name, as a packed copy does. Any number of starters, in any number of
    processes, may share a working directory; each may be used from any thread.
    """

    def __init__(
        self,
        working_dir: str | os.PathLike[str],
        start_bot: Callable[[Config], Bot],
        make_config: Callable[[str, str], Config],
        log: Callable[[str], object] | None = None,
    ) -> None:
        self._working_dir: Final = os.path.realpath(working_dir)
        self._start_bot: Final = start_bot
        self._make_config: Final = make_config
        self._log: Final = _LOG.warning if log is None else log
        self._records: Final = Records(os.path.join(places().state, "drones"))
        self._lock: Final = threading.Lock()
        self._sweeping: Final = threading.Lock()
        self._owner: Owner | None = None
        self._ours: Final[dict[str, Bot | None]] = {}
        """The bots of this starter by work directory; None while they are being started."""

    def start(self, bot_id: str) -> Bot:
        """Starts a bot of this id in a new work directory, after a short :meth:`sweep`.

        Raises ConfigError for an unusable id or working directory, StateError when the directory cannot be recorded
        or made, and whatever ``make_config`` and ``start_bot`` raise. Nothing is left of a failed start.
        """
        check_bot_id(bot_id)
        self._check_working_dir()
        self._sweep(None, _SWEEP_AT_START_S, wait=False)
        path = self._recorded(bot_id)
        try:
            self._make(path)
            bot = self._start_bot(self._make_config(bot_id, path))
        except BaseException:
            self._give_up(path)
            raise
        with self._lock:
            self._ours[path] = bot
        return bot

    def sweep(self, designated: Collection[str] | None = None, within: float = 60.0) -> list[str]:
        """Removes the work directories that nobody claims, each with its log and drain file; their paths.

        Claimed are those of bots that live: this starter's own, those that a slice of this host names, and those
        made by another starter that still lives, which are its to remove. Of each ``designated`` id (None: of every
        id) the newest directory is kept as well, so that its log can be read until the next start.

        It takes about ``within`` seconds at most; the next sweep goes on from there. What cannot be removed is
        logged, with the cure, and tried again by the next sweep. Raises StateError when the records cannot be read.
        """
        return self._sweep(designated, within, wait=True)

    def close(self) -> None:
        """Leaves what this starter made to the others' sweeps, as its end does; its bots go on."""
        with self._lock:
            self._ours.clear()
            owner, self._owner = self._owner, None
        if owner is not None:
            owner.close()

    def _check_working_dir(self) -> None:
        if not os.path.isdir(self._working_dir):
            raise ConfigError(
                "The working directory of the drone does not exist",
                path=self._working_dir,
                cause="the bots' work directories are made in it",
                remedy=f"mkdir -p {self._working_dir}",
            )

    def _recorded(self, bot_id: str) -> str:
        """The path of a directory that does not exist yet, and is recorded as ours."""
        path = os.path.join(self._working_dir, new_directory_name(bot_id))
        with self._lock:
            if self._owner is None:
                self._records.make_directory()
                self._owner = Owner(self._records.directory)
            self._ours[path] = None
            owner = self._owner.name
        try:
            self._records.write(Record(bot_id=bot_id, path=path, owner=owner, created=time.time()))
        except BaseException:
            self._forget(path)
            raise
        return path

    def _make(self, path: str) -> None:
        try:
            os.mkdir(path, 0o700)
        except OSError as e:
            raise StateError(
                "The bot's work directory cannot be made",
                path=path,
                errno=e.errno,
                remedy=f"Make room in {self._working_dir} and let it be written.",
            ) from e
        self._share_cache(path)

    def _share_cache(self, path: str) -> None:
        """Without it a bot has a cache of its own: slower, and no reason not to start."""
        shared, link = (
            os.path.join(self._working_dir, "cipd_cache"),
            os.path.join(path, "cipd_cache", "cache"),
        )
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(shared, 0o755)
            if not os.path.isdir(shared):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), shared)
            os.mkdir(os.path.dirname(link), 0o755)
            os.symlink(shared, link, target_is_directory=True)
        except OSError as e:
            self._log(f"The shared CIPD cache could not be linked from {link}: {e}")

    def _give_up(self, path: str) -> None:
        """After a failed start. What cannot be removed now stays recorded, for a sweep."""
        try:
            self._remove(path, time.monotonic() + _REMOVE_S)
        except SwarmcgError as e:
            self._log(str(e))
        finally:
            self._forget(path)

    def _forget(self, path: str) -> None:
        with self._lock:
            self._ours.pop(path, None)

    def _sweep(self, designated: Collection[str] | None, within: float, *, wait: bool) -> list[str]:
        end = time.monotonic() + within
        if not self._sweeping.acquire(timeout=within if wait else 0):
            return []  # another thread is at it
        try:
            return list(self._swept(designated, end))
        finally:
            self._sweeping.release()

    def _swept(self, designated: Collection[str] | None, end: float) -> Iterator[str]:
        records = self._records.below(self._working_dir)
        # Asked before the slices are looked at: until its starter has ended, a bot may still get its slice.
        loose = [record for record in superseded(records, designated) if self._is_loose(record)]
        claims = _claimed_by_slices() if loose else frozenset()
        if claims is None:
            return
        for record in loose:
            if time.monotonic() >= end:
                return
            if not is_claimed(record.path, claims) and self._removed(record.path, end):
                yield record.path
        sweep_owners(
            self._records.directory, {record.owner for record in self._records.below(self._working_dir)}
        )

    def _is_loose(self, record: Record) -> bool:
        """Whether neither this nor another starter has the bot in hand."""
        if not is_directory_name(os.path.basename(record.path)):
            return False
        with self._lock:
            ours = record.path in self._ours
            bot = self._ours.get(record.path)
            own_name = self._owner.name if self._owner is not None else None
        if ours:
            return bot is not None and has_ended(bot)
        return record.owner == own_name or not is_alive(self._records.directory, record.owner)

    def _removed(self, path: str, end: float) -> bool:
        try:
            self._remove(path, end)
        except SwarmcgError as e:
            self._log(str(e))
            return False
        self._forget(path)
        return True

    def _remove(self, path: str, end: float) -> None:
        """The directory and what was made beside it; the record last."""
        remove_tree(path, end - time.monotonic())
        made = is_made_beside(os.path.basename(path))
        with contextlib.suppress(FileNotFoundError), os.scandir(self._working_dir) as found:
            beside = [entry.path for entry in found if made(entry.name)]
            for sibling in beside:
                remove_tree(sibling, end - time.monotonic())
        self._records.forget(path)


def has_ended(bot: Bot) -> bool:
    """Whether a bot is gone, as far as it tells; one whose ``wait`` fails will not tell anything better."""
    try:
        bot.wait(0)
    except TimeoutError:
        return False
    except Exception as e:  # noqa: BLE001  a bot may end with any error; whether its slice is left is asked elsewhere
        _LOG.debug("a bot ended with %r", e)
    return True


def superseded(records: Iterable[Record], designated: Collection[str] | None) -> list[Record]:
    """All but the newest record of each designated id; None stands for every id. The oldest come first."""
    ordered = sorted(records, key=lambda record: record.created)
    newest = {record.bot_id: record for record in ordered}
    return [
        record
        for record in ordered
        if not ((designated is None or record.bot_id in designated) and newest[record.bot_id] is record)
    ]


def is_claimed(path: str, claims: Collection[str]) -> bool:
    """Whether a claimed directory is this one or lies in it."""
    return any(claim == path or claim.startswith(path + os.sep) for claim in claims)
