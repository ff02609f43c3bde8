"""The drain file: the bot's hooks look for it and finish their task when it appears."""

import contextlib
import os

from swarmcg.errors import StateError
from swarmcg.plain_files import CREATE
from swarmcg.supervisor.launch import Launch

__all__ = ["drain_file", "make_drain_file", "remove_drain_file"]


def drain_file(launch: Launch) -> str | None:
    """``<work_directory>.drain`` where draining is done by file, else None."""
    by_file = isinstance(launch.drain, str) and "file" in launch.drain
    return f"{launch.work_directory}.drain" if by_file and launch.work_directory else None


def make_drain_file(path: str) -> None:
    """Makes it, empty; one that exists will do. Follows no link, since the directory may be a bot's. Raises
    StateError.
    """
    try:
        os.close(os.open(path, CREATE, 0o644))
    except OSError as e:
        raise StateError(
            "The drain file could not be made",
            path=path,
            errno=e.errno,
            remedy="See that the directory can be written, or drain by signal (drain='sigterm').",
        ) from e


def remove_drain_file(path: str) -> None:
    """Removes it, so that the next bot in this work directory does not find it; harmless when it is gone."""
    with contextlib.suppress(OSError):
        os.unlink(path)
