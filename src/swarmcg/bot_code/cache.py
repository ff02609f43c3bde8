"""The zips that were downloaded and verified, by the SHA-256 of their bytes, and their way into a work
directory.

    <cache>/bot_code/<sha256 of the zip>.zip
    <cache>/bot_code/<sha256 of an immutable address>.seen     the digest of the zip that came from it

Several processes use it at the same time without waiting for each other. A file appears whole, by rename.
Whoever uses a zip holds a shared lock on it while making it look recently used; whoever prunes must get the
exclusive one.
"""

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Final

from swarmcg.errors import BotCodeError

if TYPE_CHECKING:
    import zipfile

__all__ = ["Cache", "install"]

_IN_USE: Final = 3600.0
"""For how many seconds after its last use a zip is not pruned, nor an unfinished file taken for abandoned."""

_INCOMING: Final = ".incoming-"
_IMPORTED: Final = (0, 8)
"""zipfile.ZIP_STORED and ZIP_DEFLATED."""
_DIGEST: Final = re.compile(rb"[0-9a-f]{64}")


class Cache:
    """The zips below one cache directory. Nothing is created before there is something to store."""

    def __init__(self, directory: str | os.PathLike[str], kept: int, max_unpacked_bytes: int) -> None:
        self.directory: Final = os.path.join(os.path.abspath(directory), "bot_code")
        self._kept: Final = kept
        self._max_unpacked_bytes: Final = max_unpacked_bytes

    def known(self, target: str) -> str | None:
        """The verified zip that came from this immutable address before; None when there is none, or it is
        damaged.
        """
        if not _is_ours_alone(self.directory):
            return None
        try:
            digest = _digest_in(self._seen(target))
            path = self._zip(digest)
            return path if _use(path, digest) else None
        except OSError:
            return None  # whatever it is, a download either mends it or tells what is wrong

    def store(self, chunks: Iterable[bytes], *, source: str, target: str | None) -> str:
        """The path of the zip made of the chunks, once it is verified and on disk.

        ``source`` is the address that errors name, ``target`` the immutable address the zip came from, if it
        did. Raises BotCodeError, and what ``chunks`` raises; then nothing of it is left.
        """
        try:
            _make(os.path.dirname(self.directory))
            _make(self.directory)
            if not _is_ours_alone(self.directory):
                raise _open_to_others(self.directory, source)
            with _incoming(self.directory) as (path, file):
                digest = _write(chunks, file)
                _verify(file, source, self._max_unpacked_bytes)
                _publish(path, file, self._zip(digest))
            if target is not None:
                self._remember(target, digest)
            self._prune(keep=digest)
        except OSError as e:
            raise _unwritable(self.directory, source, e) from e
        return self._zip(digest)

    def _zip(self, digest: str) -> str:
        return os.path.join(self.directory, f"{digest}.zip")

    def _seen(self, target: str) -> str:
        import hashlib  # noqa: PLC0415  OpenSSL takes milliseconds to load

        return os.path.join(self.directory, f"{hashlib.sha256(target.encode()).hexdigest()}.seen")

    def _remember(self, target: str, digest: str) -> None:
        with _incoming(self.directory) as (path, file):
            file.write(digest.encode())
            _publish(path, file, self._seen(target))

    def _prune(self, *, keep: str) -> None:
        """Removes the zips that were not used for longest, never one that is in use, and what was
        abandoned.
        """
        zips = sorted(self._names(".zip"), key=self._age)
        for name in zips[self._kept :]:
            if name != f"{keep}.zip":
                _remove_unused(os.path.join(self.directory, name))
        for name in self._names(".seen"):
            if not os.path.exists(self._zip(_digest_in(os.path.join(self.directory, name)))):
                _remove(os.path.join(self.directory, name))
        for name in self._names(_INCOMING):
            if self._age(name) > _IN_USE:
                _remove(os.path.join(self.directory, name))

    def _names(self, kind: str) -> list[str]:
        return [n for n in os.listdir(self.directory) if n.endswith(kind) or n.startswith(kind)]

    def _age(self, name: str) -> float:
        return _age(os.path.join(self.directory, name))


def install(zip_path: str | os.PathLike[str], work_directory: str | os.PathLike[str]) -> str:
    """Puts a copy of the zip into the work directory as ``swarming_bot.zip``, and returns the path of the
    copy.

    It is a copy and never a link, since a bot may rewrite its own zip. It appears as a whole, in place of an
    earlier one. Raises BotCodeError; then the work directory is as it was.
    """
    import shutil  # noqa: PLC0415  it loads every compression there is

    directory = os.path.abspath(work_directory)
    final = os.path.join(directory, "swarming_bot.zip")
    try:
        with open(zip_path, "rb") as source, _incoming(directory) as (path, file):
            shutil.copyfileobj(source, file)
            file.flush()  # and no fsync: after a crash of the host it is installed anew
            os.chmod(path, 0o644)
            os.replace(path, final)
    except OSError as e:
        raise BotCodeError(
            f"The bot code cannot be put into {directory}",
            path=e.filename or final,
            errno=e.errno,
            cause=None if e.errno else str(e),
            remedy=f"Check that {directory} is a directory that may be written and has room.",
        ) from e
    return final


@contextlib.contextmanager
def _incoming(directory: str) -> Iterator[tuple[str, IO[bytes]]]:
    """A new file under a name that nothing looks for; whatever happens, that name is gone afterwards."""
    path = os.path.join(directory, f"{_INCOMING}{os.urandom(8).hex()}")
    try:
        with open(path, "x+b") as file:
            yield path, file
    finally:
        _remove(path)


def _write(chunks: Iterable[bytes], file: IO[bytes]) -> str:
    """The digest of the chunks, which are now in the file."""
    import hashlib  # noqa: PLC0415  OpenSSL takes milliseconds to load

    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        file.write(chunk)
    file.flush()
    return digest.hexdigest()


def _publish(path: str, file: IO[bytes], final: str) -> None:
    """Gives a complete file its name. The directory is not synced: a name lost in a crash is only another
    download.
    """
    file.flush()
    os.fsync(file.fileno())
    os.chmod(path, 0o644)
    os.replace(path, final)


def _verify(file: IO[bytes], source: str, max_unpacked_bytes: int) -> None:
    fault = _fault(file, max_unpacked_bytes)
    if fault is not None:
        raise BotCodeError(
            "What the server sent is not a bot's code",
            path=source,
            cause=fault,
            remedy="Check that the URL is the Swarming server's own and no portal or proxy answers for it.",
        )


def _fault(file: IO[bytes], max_unpacked_bytes: int) -> str | None:
    """What is wrong with the file as a bot's code: a zip that Python can run."""
    import struct  # noqa: PLC0415  only for a download
    import zipfile  # noqa: PLC0415  the same
    import zlib  # noqa: PLC0415  the same

    try:
        with zipfile.ZipFile(file) as archive:
            return _content_fault(archive, max_unpacked_bytes)
    except zipfile.BadZipFile as e:
        return f"it is no complete zip: {e}"
    except MemoryError:
        return "the zip takes more memory than there is"
    # A broken stream ends in whatever the decompressor of its method raises.
    except (zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError) as e:
        return f"the zip is damaged: {e}"


def _content_fault(archive: "zipfile.ZipFile", max_unpacked_bytes: int) -> str | None:
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if unpacked > max_unpacked_bytes:
        return f"the zip unpacks to {unpacked} bytes, and {max_unpacked_bytes} are allowed"
    # zipimport reads no other. It also keeps out LZMA, whose streams say how much memory to set aside for them.
    strange = next((member.filename for member in members if member.compress_type not in _IMPORTED), None)
    if strange is not None:
        return f"{strange!r} in the zip is compressed in a way in which Python imports nothing"
    damaged = archive.testzip()
    if damaged is not None:
        return f"the checksum of {damaged!r} in the zip is wrong"
    if "__main__.py" not in archive.namelist():
        return "the zip is no Python program: it has no __main__.py"
    return None


def _use(path: str, digest: str) -> bool:
    """True when the zip is there and undamaged; from then on it counts as recently used."""
    import hashlib  # noqa: PLC0415  OpenSSL takes milliseconds to load

    with open(path, "rb") as file:
        if not _lock(file, exclusive=False):
            return False
        os.utime(path)
        # Pruned between open and lock, it has no name left.
        return (
            os.fstat(file.fileno()).st_nlink > 0 and hashlib.file_digest(file, "sha256").hexdigest() == digest
        )


def _digest_in(path: str) -> str:
    """The digest that a ``.seen`` file holds, or "none", which is nothing's digest, when it is damaged."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return "none"
    return content.decode() if _DIGEST.fullmatch(content) else "none"


def _remove_unused(path: str) -> None:
    """Removes a zip unless somebody uses it now or did within the last hour."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        if _lock(file, exclusive=True) and _age(path) > _IN_USE:
            _remove(path)


if sys.platform == "linux":
    import fcntl

    def _lock(file: IO[bytes], *, exclusive: bool) -> bool:
        """Takes a lock that goes with the descriptor; False when another one is in the way. Never waits."""
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

else:

    def _lock(_file: IO[bytes], *, exclusive: bool) -> bool:  # noqa: ARG001  the other platform's signature
        """Nothing is taken: what was used within the hour is not pruned, and Windows removes no open file."""
        return True


if sys.platform == "win32":

    def _is_ours_alone(directory: str) -> bool:
        """Whether it is a directory: who may write to it is not looked at there."""
        return os.path.isdir(directory)

else:

    def _is_ours_alone(directory: str) -> bool:
        """Whether nobody but us and root can put anything there: code out of it is run with our rights."""
        try:
            found = os.stat(directory)
        except OSError:
            return False
        return found.st_uid in {0, os.geteuid()} and not found.st_mode & 0o022


def _age(path: str) -> float:
    """Seconds since the last use; a file that just vanished is as old as can be."""
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return float("inf")


def _make(directory: str) -> None:
    """Makes the directory if it is not there, whatever the umask is: others may read it, and only read it."""
    try:
        os.makedirs(directory, mode=0o755)
        os.chmod(directory, 0o755)  # noqa: S103  others may read it
    except FileExistsError:
        if not os.path.isdir(directory):
            raise


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _open_to_others(directory: str, source: str) -> BotCodeError:
    return BotCodeError(
        f"The bot code is not kept in {directory}",
        path=source,
        value=directory,
        cause="somebody else owns the directory or may write to it, and could put code of their own there",
        remedy=f"Run: chown root: {directory} && chmod 755 {directory}; or name another cache directory.",
    )


def _unwritable(directory: str, source: str, e: OSError) -> BotCodeError:
    return BotCodeError(
        f"The bot code cannot be stored in {directory}",
        path=source,
        value=directory,
        errno=e.errno,
        cause=None if e.errno else str(e),
        remedy=f"Make room in {directory} and let it be written, or name another (SWARMCG_CACHE_DIR).",
    )
