"""Wheels for another Debian's Python, fetched or made on this machine."""

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from checks.debian import UnavailableError

PYTHON: Final = {"bookworm": "3.11", "trixie": "3.13"}
# What the newest wheels for Linux may ask of the C library: bookworm has 2.36.
PLATFORMS: Final = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
# Published as source alone: pure Python, so this machine's interpreter makes the wheel.
WITHOUT_WHEEL: Final = ("cgroupspy",)
PIP: Final = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def download(suite: str, requirements: Sequence[str], into: Path) -> None:
    """Puts wheels of all requirements, and of what they need, into a directory. Raises UnavailableError."""
    from_source = [line for line in requirements if line.startswith(WITHOUT_WHEEL)]
    if from_source:
        # Without --use-pep517 an old pip, as Debian 12 has, wants setuptools and wheel installed beside it.
        _call([*PIP, "wheel", "--use-pep517", "--no-deps", "--wheel-dir", str(into), *from_source])
    _call([*PIP, "download", "--find-links", str(into), "--dest", str(into), *target(suite), *requirements])


def target(suite: str) -> list[str]:
    """Options of pip that name the suite's interpreter and machine in the place of ours."""
    version, machine = PYTHON[suite].replace(".", ""), platform.machine()
    return [
        *("--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON[suite]),
        *(f"--abi={abi}" for abi in (f"cp{version}", "abi3", "none")),
        *(f"--platform={system}_{machine}" for system in PLATFORMS),
    ]


def _call(command: Sequence[str]) -> None:
    ran = subprocess.run(command, check=False, text=True, stdout=sys.stderr, stderr=subprocess.PIPE)
    if ran.returncode:
        raise UnavailableError(f"pip ended with {ran.returncode}:\n{ran.stderr.strip()}")
