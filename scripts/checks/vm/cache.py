"""What was built, kept by the hash of what it was made from: ${XDG_CACHE_HOME:-~/.cache}/swarmcg/vm."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

Maker = Callable[[Path], object]
"""Fills a directory."""
KEPT: Final = 3
"""How many versions of a thing stay: several checkouts may be at work."""


def place() -> Path:
    """The cache's directory, which need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swarmcg" / "vm"


def key(parts: Iterable[bytes]) -> str:
    """The name of what is made from these parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def find(name: str) -> Path | None:
    """The directory of this name, if it was built; it then counts as used."""
    directory = place() / name
    if not directory.is_dir():
        return None
    os.utime(directory)
    return directory


def keep(kind: str, name: str, make: Maker) -> Path:
    """The directory of this name. `make` fills it unless it is there; one that fails or is killed leaves none.

    One process builds at a time. Of each kind the last KEPT that were used stay.
    """
    with alone():
        directory = place() / name
        if not directory.is_dir():
            _make(directory, make)
        os.utime(directory)
        for old in sorted(place().glob(f"{kind}-*"), key=_used, reverse=True)[KEPT:]:
            shutil.rmtree(old)
    return directory


def clear() -> None:
    """Remove everything, once nobody builds. A machine that runs goes on: it has its disk open."""
    with alone():
        for directory in place().iterdir():
            if directory.is_dir():
                shutil.rmtree(directory)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One process builds at a time."""
    place().mkdir(parents=True, exist_ok=True)
    with (place() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a builder's downloads have limits, and its death frees the lock
        yield


def _make(directory: Path, make: Maker) -> None:
    making = place() / "making"
    if making.exists():
        shutil.rmtree(making)
    making.mkdir()
    try:
        make(making)
        making.rename(directory)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _used(directory: Path) -> float:
    return directory.stat().st_mtime
