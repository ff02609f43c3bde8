"""What was made below a working directory, and by whom: one small file in the state directory for each work
directory, written before that is made.
"""

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from typing import Final

import msgspec

from swarmcg.errors import StateError

__all__ = ["Record", "Records"]

_KIND: Final = ".json"
_CURE: Final = "Name a directory that can be written with SWARMCG_STATE_DIR, or free space on it."


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One work directory: whose it is, and which starter made it (see :mod:`swarmcg.drone.owner`) and when, in
    seconds since 1970.
    """

    bot_id: str
    path: str
    owner: str
    created: float


class Records:
    """The records in one directory. Safe for any number of processes: a file appears and vanishes whole."""

    def __init__(self, directory: str) -> None:
        self.directory: Final = directory

    def make_directory(self) -> None:
        """Makes the directory itself. Raises StateError."""
        with self._errors():
            os.makedirs(self.directory, mode=0o755, exist_ok=True)

    def write(self, record: Record) -> None:
        """Puts the record on disk, name and content, before it returns. Raises StateError; then it is not there."""
        final = self._file(record.path)
        partial = f"{final}.{secrets.token_hex(4)}.partial"
        self.make_directory()
        with self._errors():
            try:
                with open(partial, "xb") as f:
                    # A path of the operating system may hold surrogate escapes, which this keeps.
                    f.write(json.dumps(msgspec.to_builtins(record)).encode())
                    f.flush()
                    os.fsync(f.fileno())
                os.replace(partial, final)
                _sync_directory(self.directory)
            except OSError:
                for path in (partial, final):
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                raise

    def forget(self, path: str) -> None:
        """Removes the record of a work directory; harmless when there is none. Raises StateError."""
        with self._errors(), contextlib.suppress(FileNotFoundError):
            os.unlink(self._file(path))

    def below(self, working_dir: str) -> list[Record]:
        """The records of the work directories that were made in this directory, the oldest first.

        A file that is damaged, or tells of another place, counts for nothing. Raises StateError.
        """
        with self._errors():
            try:
                names = os.listdir(self.directory)
            except FileNotFoundError:
                return []
        found = [record for name in names if name.endswith(_KIND) for record in self._read(name)]
        return sorted(
            (record for record in found if os.path.dirname(record.path) == working_dir),
            key=lambda record: record.created,
        )

    def _read(self, name: str) -> Iterator[Record]:
        with contextlib.suppress(OSError, ValueError, RecursionError, msgspec.ValidationError):
            with open(os.path.join(self.directory, name), "rb") as f:
                record = msgspec.convert(json.load(f), Record)
            if os.path.basename(record.path) + _KIND == name:
                yield record

    def _file(self, path: str) -> str:
        return os.path.join(self.directory, os.path.basename(path) + _KIND)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise StateError(
                "The record of a work directory cannot be kept",
                path=self.directory,
                errno=e.errno,
                cause="what is made without a record would never be removed",
                remedy=_CURE,
            ) from e


if sys.platform == "win32":

    def _sync_directory(_path: str) -> None:
        """Nothing to do: NTFS journals names by itself, and directories cannot be opened there."""

else:

    def _sync_directory(path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
