"""The interpreter and the packages that swarmcg requires of it."""

import re
import sys
from importlib import metadata

from swarmcg.doctor.seen import Python

__all__ = ["look_at_python"]


def look_at_python() -> Python:
    """Versions are not compared: the installer did that."""
    major, minor, *_ = sys.version_info
    return Python(version=(major, minor), executable=sys.executable, missing=tuple(_missing()))


def _missing() -> list[str]:
    try:
        required = metadata.requires("swarmcg") or []
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return []
    names = [_name(line) for line in required if _applies(line)]
    return sorted(name for name in names if not _installed(name))


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return found[0] if found else requirement


def _applies(requirement: str) -> bool:
    """Whether a requirement counts here: those of extras do not, nor do those of another platform."""
    marker = requirement.partition(";")[2]
    platform = re.search(r"""sys_platform == ["'](\w+)["']""", marker)
    return "extra" not in marker and (platform is None or platform[1] == sys.platform)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
