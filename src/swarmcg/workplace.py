"""The work directory of a bot: whether a bot may be started there, and the claim to it.

A second bot in one work directory would wait for 5 minutes and then ask for a reboot of the host. On other systems
than Linux nobody is kept from that yet.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import Final

from swarmcg.bot import Config
from swarmcg.errors import ConfigError, StateError
from swarmcg.plain_files import APPEND, let_block

__all__ = ["check_unlocked", "checked", "log"]

_LOCK_FILE: Final = "swarming.lck"
_ONE_EACH: Final = "End that bot, or use a work directory of its own for each bot."
_OPENINGS: Final = 8


def checked(config: Config) -> str:
    """The work directory as an absolute path, after checking that a bot may be started there. Raises
    ConfigError.
    """
    path = os.path.abspath(os.fspath(config.work_directory))
    size = len(os.fsencode(path))
    if size > config.work_directory_limit:
        raise ConfigError(
            "The work directory's path is too long",
            path=path,
            value=size,
            cause=f"it has {size} bytes of at most {config.work_directory_limit}, "
            "since the bot makes Unix sockets in it, whose paths end at 104 bytes",
            remedy="Use a shorter path; in the library, Config(work_directory_limit=…) allows a longer one.",
        )
    if not os.path.isdir(path):
        there = os.path.lexists(path)
        raise ConfigError(
            "The work directory is no directory" if there else "The work directory does not exist",
            path=path,
            cause="the bot keeps its code, caches and logs there",
            remedy="Name a directory that serves this bot alone." if there else f"mkdir -p {path}",
        )
    _check_not_home(path)
    return path


def _check_not_home(path: str) -> None:
    home = os.path.realpath(os.path.expanduser("~"))
    real = os.path.realpath(path)
    if _holds(real, home):
        raise ConfigError(
            "The work directory is the home directory"
            if real == home
            else "The work directory holds the home directory",
            path=path,
            cause="a bot deletes everything in its work directory that it does not know",
            remedy="Use a directory that serves this bot alone.",
        )


def _holds(directory: str, path: str) -> bool:
    try:
        return os.path.commonpath([directory, path]) == directory
    except ValueError:  # on different drives
        return False


if sys.platform == "linux":
    import fcntl

    def check_unlocked(work: str) -> None:
        """Raises ConfigError for a directory that is held by a bot which somebody else started.

        Bots of ours are found by their log (:func:`_claim`): to try a bot's own lock while that bot updates
        itself, and has let go of it for a moment, could make it believe that it is the second one.
        """
        path = os.path.join(work, _LOCK_FILE)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return
        holder = ""
        try:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise ConfigError(
                "Another bot runs in this work directory",
                path=path,
                value=holder,
                errno=e.errno,
                cause="its lock file is held",
                remedy=_ONE_EACH,
            ) from None
        except OSError:
            return
        finally:
            os.close(fd)

    def _claim(fd: int, path: str) -> None:
        """Locks the log for as long as any process has it open: the bot and all that write where it writes.

        The lock goes with the open file description that the bot inherits (flock(2)), through every exec of
        an update, and the kernel drops it with the last of them, whatever becomes of us. The bot's own lock
        file tells less: a bot takes it seconds after its start, and lets go of it while it updates itself.
        """
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise ConfigError(
                "Another bot runs in this work directory",
                path=path,
                errno=e.errno,
                cause="that bot's processes have its log open",
                remedy=_ONE_EACH,
            ) from None
        except OSError:
            return  # a file system without flock: the bot's own lock file has to do

else:

    def check_unlocked(_work: str) -> None:
        """Not looked at: the second bot itself finds out."""

    def _claim(_fd: int, _path: str) -> None:
        """No claim."""


@contextlib.contextmanager
def log(path: str) -> Iterator[int]:
    """The bot's log, opened for appending and claimed for this bot; a new one is taken away again when the
    start fails and left it empty. Raises StateError, and ConfigError when another bot has claimed it.
    """
    before = os.path.lexists(path)
    fd = _claimed(path)
    useless = False
    try:
        yield fd
    except BaseException:
        useless = not before and not os.fstat(fd).st_size
        if useless and sys.platform != "win32":
            _take_away(path)  # while the claim holds: afterwards it could be another bot's
        raise
    finally:
        os.close(fd)
        if useless and sys.platform == "win32":  # where open files stay
            _take_away(path)


def _take_away(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _claimed(path: str) -> int:
    """The log, locked. A start that failed may take the file away between our opening and locking it; then
    it is opened anew.
    """
    for _ in range(_OPENINGS):
        fd = _opened(path)
        try:
            _check_plain(fd, path)
            _claim(fd, path)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.lstat(path)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise StateError("The bot's log vanishes whenever it is made", path=path, remedy="See who removes it.")


def _opened(path: str) -> int:
    try:
        return os.open(path, APPEND, 0o644)
    except OSError as e:
        raise StateError(
            "The bot's log cannot be opened",
            path=path,
            errno=e.errno,
            remedy="See that it is a plain file that can be written.",
        ) from e


def _check_plain(fd: int, path: str) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise StateError(
            "The bot's log is no plain file",
            path=path,
            cause="it is a special file or has several links, so that writing to it could change another file",
            remedy="Remove it.",
        )
    let_block(fd)
