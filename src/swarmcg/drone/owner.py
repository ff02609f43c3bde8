"""Who made a work directory, and whether that starter still lives: what it made is its own business then.

On Linux a starter holds a lock on a file of its own for as long as it lives, which the kernel releases however it
ends. Elsewhere a starter is its process, known by pid and start time.
"""

import contextlib
import errno
import os
import secrets
import sys
from typing import Final

from swarmcg.errors import StateError

__all__ = ["Owner", "is_alive", "sweep_owners"]

_KIND: Final = ".owner"

if sys.platform == "linux":
    import fcntl
    from collections.abc import Collection

    from swarmcg.flock import hold

    _NO_OWNER: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
    """No starter can have such a file."""

    class Owner:
        """One starter's sign of life, until :meth:`close` or the end of its process."""

        def __init__(self, directory: str) -> None:
            self.name, self._fd = self._made(directory)
            self._path: Final = _file(directory, self.name)

        def _made(self, directory: str) -> tuple[str, int]:
            while True:
                name = secrets.token_hex(8)
                path = _file(directory, name)
                fd = -1
                try:
                    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                    hold(fd, fcntl.LOCK_EX)
                    if os.fstat(fd).st_nlink:
                        return name, fd
                except OSError as e:
                    if fd >= 0:
                        os.close(fd)
                    raise _no_owner(path, e) from e
                os.close(fd)  # somebody took it for a dead starter's before it was locked

        def close(self) -> None:
            """Gives up what it owned, to whoever sweeps next."""
            if self._fd >= 0:
                with contextlib.suppress(
                    OSError
                ):  # a starter without a file counts as dead, as one without its lock
                    os.unlink(self._path)
                os.close(self._fd)
                self._fd = -1

    def is_alive(directory: str, name: str) -> bool:
        """Whether the starter of this name still lives; also where that cannot be found out, for want of a
        descriptor say: what it made is removed otherwise.
        """
        try:
            fd = os.open(_file(directory, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as e:
            return e.errno not in _NO_OWNER
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def sweep_owners(directory: str, needed: Collection[str]) -> None:
        """Removes the files of dead starters that no record names."""
        for name in _names(directory):
            if name not in needed:
                with contextlib.suppress(OSError):
                    _remove_dead(_file(directory, name))

    def _remove_dead(path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)  # under its lock: who is just about to take it sees that the name is gone
        finally:
            os.close(fd)

    def _names(directory: str) -> list[str]:
        try:
            return [n.removesuffix(_KIND) for n in os.listdir(directory) if n.endswith(_KIND)]
        except OSError:
            return []

    def _file(directory: str, name: str) -> str:
        return os.path.join(directory, os.path.basename(name) + _KIND)

    def _no_owner(path: str, e: OSError) -> StateError:
        return StateError(
            "The starter cannot mark what it makes as its own",
            path=path,
            errno=e.errno,
            remedy="Name a directory that can be written with SWARMCG_STATE_DIR, or free space on it.",
        )

else:
    from collections.abc import Collection

    class Owner:
        """One starter's sign of life: its process, which may have several."""

        def __init__(self, directory: str) -> None:
            import psutil  # noqa: PLC0415  tens of milliseconds

            del directory
            me = psutil.Process()
            self.name: Final = f"{me.pid}/{me.create_time()!r}/{secrets.token_hex(4)}"  # one of several in it

        def close(self) -> None:
            """Changes nothing: what it made is its process's until that has ended."""

    def is_alive(directory: str, name: str) -> bool:
        """Whether the process of this name still runs."""
        import psutil  # noqa: PLC0415  tens of milliseconds

        del directory
        with contextlib.suppress(ValueError, psutil.Error):
            pid, created, _ = name.split("/")
            return bool(repr(psutil.Process(int(pid)).create_time()) == created)
        return False

    def sweep_owners(directory: str, needed: Collection[str]) -> None:
        """Nothing to do: there are no files."""
        del directory, needed
