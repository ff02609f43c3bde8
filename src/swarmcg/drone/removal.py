"""Removes a tree that a bot left, whatever it put there: links, mounts, directories nested without end or without
rights.

No link is followed and no mount entered, and any depth takes two descriptors: on POSIX each directory is first
renamed to the top, which the kernel refuses for a mount point (EBUSY, fs/namei.c, vfs_rename), and only then
opened.
"""

import contextlib
import errno
import os
import stat
import sys
import time

from swarmcg.errors import StateError

__all__ = ["remove_tree"]


def remove_tree(path: str, within: float) -> None:
    """Removes the directory, file or link at a path and all below it; harmless when there is nothing.

    Raises StateError when something cannot be removed, once everything else is, or when ``within`` seconds were
    not enough; another call goes on from there.
    """
    try:
        _remove(path, time.monotonic() + within)
    except OSError as e:
        raise StateError(
            "A bot's work directory cannot be removed",
            path=path,
            errno=e.errno,
            cause=f"{os.fsdecode(e.filename)} is in the way" if e.filename is not None else None,
            remedy=_REMEDIES.get(e.errno or 0, "Remove it by hand."),
        ) from e


_REMEDIES = {
    errno.EBUSY: "Something is mounted there, or it is in use: unmount it (findmnt, umount).",
    errno.EPERM: "See whether it is marked immutable (lsattr -R; chattr -R -i), or whose it is.",
    errno.EACCES: "See whose it is, and remove it as that user or as root.",
    errno.EROFS: "Mount its file system writable again.",
    errno.ETIMEDOUT: "The removal goes on with the next sweep; nothing need be done.",
}

if sys.platform == "win32":

    def _remove(path: str, _end: float) -> None:
        import shutil  # noqa: PLC0415  it loads every compression there is

        with contextlib.suppress(FileNotFoundError):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

else:
    import itertools
    import secrets
    from collections.abc import Callable, Container
    from typing import Final

    _DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    _BATCH: Final = 1000
    _NAME_MAX: Final = 255

    def _remove(path: str, end: float) -> None:
        try:
            kind = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(kind):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        moved = _beside(path)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, moved)  # refused for a mount point
        try:
            _empty(moved, end)
            os.rmdir(moved)
        except FileNotFoundError:  # somebody else removes it, too
            return
        except OSError:
            with contextlib.suppress(OSError):
                os.rename(moved, path)  # so that the next call finds what is left
            raise

    def _beside(path: str) -> str:
        """A name of its own in the same directory; without the old one where that leaves no room for more."""
        directory, name = os.path.split(path)
        mark = f".{secrets.token_hex(4)}.gone"
        room = len(os.fsencode(name + mark)) <= _NAME_MAX
        return os.path.join(directory, name + mark if room else mark)

    def _empty(path: str, end: float) -> None:
        top = _opened(path, None)
        try:
            _Flattening(top, end).run()
        finally:
            os.close(top)

    def _opened(name: str, within: int | None) -> int:
        """A directory, with the rights to list and change it."""
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=within)
        except PermissionError:  # never root, so that a link that somebody puts here meanwhile gains nothing
            os.chmod(name, stat.S_IRWXU, dir_fd=within)
            fd = os.open(name, _DIRECTORY, dir_fd=within)
        with contextlib.suppress(OSError):
            os.fchmod(fd, stat.S_IRWXU)
        return fd

    class _Flattening:
        """Empties a directory by drawing every directory below it up to the top, where it is emptied in its turn."""

        def __init__(self, top: int, end: float) -> None:
            self._top: Final = top
            self._end: Final = end
            self._mark: Final = f".gone-{secrets.token_hex(4)}-"
            self._numbers: Final = itertools.count()

        def run(self) -> None:
            """Raises the first OSError, after everything else was done."""
            self._each(self._top, self._at_top)

        def _at_top(self, name: str, is_directory: bool) -> None:
            if is_directory and name.startswith(self._mark):
                self._flatten(name)
            else:
                self._below(self._top, name, is_directory)

        def _below(self, fd: int, name: str, is_directory: bool) -> None:
            if is_directory:
                self._draw_up(fd, name)
            else:
                os.unlink(name, dir_fd=fd)

        def _flatten(self, name: str) -> None:
            fd = _opened(name, self._top)
            try:
                self._each(fd, lambda below, is_directory: self._below(fd, below, is_directory))
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=self._top)

        def _draw_up(self, fd: int, name: str) -> None:
            drawn = f"{self._mark}{next(self._numbers)}"
            try:
                os.rename(name, drawn, src_dir_fd=fd, dst_dir_fd=self._top)
            except PermissionError:
                # Not root, and the directory is not writable, which its move to another parent needs. Renamed where
                # it is, it is known to be no mount point, and can be made writable.
                still = f"{drawn}-still"
                os.rename(name, still, src_dir_fd=fd, dst_dir_fd=fd)
                try:
                    os.chmod(still, stat.S_IRWXU, dir_fd=fd)
                    os.rename(still, drawn, src_dir_fd=fd, dst_dir_fd=self._top)
                except OSError:
                    os.rename(still, name, src_dir_fd=fd, dst_dir_fd=fd)
                    raise

        def _each(self, fd: int, act: Callable[[str, bool], None]) -> None:
            """Does it to every entry, also to those that come meanwhile, and raises the first failure at the end."""
            failed: dict[str, OSError] = {}
            while entries := _entries(fd, failed):
                for name, is_directory in entries:
                    if time.monotonic() >= self._end:
                        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                    try:
                        act(name, is_directory)
                    except FileNotFoundError:
                        continue
                    except OSError as e:
                        failed[name] = e
            for failure in failed.values():
                raise failure

    def _entries(fd: int, leaving: Container[str]) -> list[tuple[str, bool]]:
        with os.scandir(fd) as found:
            wanted = (entry for entry in found if entry.name not in leaving)
            return [(e.name, e.is_dir(follow_symlinks=False)) for e in itertools.islice(wanted, _BATCH)]
