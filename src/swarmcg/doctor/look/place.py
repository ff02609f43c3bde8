"""Looks at one directory, as a program of its own: a file system that does not answer must hold up nobody else.

Run as ``python -I -S place.py PATH``; writes one JSON object. Nothing is made or changed: what is asked is whether
it could be. Standard library only, so that it starts fast.
"""

import json
import os
import sys
from typing import Any

__all__ = ["look"]


def look(path: str) -> dict[str, Any]:
    """The fields of :class:`swarmcg.doctor.seen.Place` for a path, or for the nearest one above it that exists."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    path = os.path.realpath(path)
    found = {"exists": path, "directory": os.path.isdir(path), "writable": os.access(path, os.W_OK | os.X_OK)}
    return found | _file_system(path)


def _file_system(path: str) -> dict[str, Any]:
    if sys.platform == "win32":
        return {}
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:  # not ours to read: that says nothing of the file system
        return {}
    try:
        told = os.fstatvfs(fd)
        return {
            "syncs": _syncs(fd),
            "free_bytes": told.f_bavail * told.f_frsize,
            # Some file systems count no files, and say 0 of 0.
            "free_files": told.f_favail if told.f_files else None,
        }
    finally:
        os.close(fd)


def _syncs(fd: int) -> bool:
    try:
        os.fsync(fd)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(sys.argv[1])))
