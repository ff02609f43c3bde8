"""The systemd of this host, asked by its own tools, each within a bound."""

import os
import re
import subprocess
import sys
from typing import Final

from swarmcg.cgroup.files import read_text
from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.doctor.look.cgroups import user_manager
from swarmcg.doctor.seen import Systemd

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["look_at_systemd"]

_WITHIN_S: Final = 3.0
_UNIT: Final = "swarmcg-bots.service"
_PROPERTIES: Final = "LoadState,ActiveState,Delegate,ControlGroup"


def look_at_systemd(seen: Hierarchy) -> Systemd | None:
    """None where systemd does not run."""
    if not seen.systemd:
        return None
    told = re.match(r"systemd (\d+)", _asked("--version"))
    return Systemd(
        version=int(told[1]) if told else None,
        delegated=_delegated(seen) if os.geteuid() else None,
        bots_unit=_properties(),
    )


def _delegated(seen: Hierarchy) -> frozenset[str] | None:
    manager = user_manager(seen)
    if manager is None:
        return None
    try:
        return frozenset(read_text(f"{manager}/cgroup.controllers").split())
    except OSError:
        return None


def _properties() -> dict[str, str]:
    lines = _asked("show", _UNIT, f"--property={_PROPERTIES}").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _asked(*words: str) -> str:
    """What systemctl says; empty when it fails or does not answer in time."""
    try:
        done = subprocess.run(
            ["systemctl", *words],  # noqa: S607  wherever this host has it
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_WITHIN_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
