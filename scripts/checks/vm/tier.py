"""tests/systemd: in a fresh machine a suite, or on this machine if provision.sh has made it for them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from checks import debian
from checks.vm import image, run

# By kernel: the one that the image was made for lacks what some tests need, and those alone are run with the other.
SMOKE: Final = {"cloud": "not full and not full_kernel and not long", "full": "full_kernel and not full"}
ALL: Final = {"cloud": "not full_kernel and not long", "full": "full_kernel"}
# A plugin that no test of this tier uses takes two seconds of an emulated processor.
UNUSED: Final = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
MADE_FOR_TESTS: Final = Path("/opt/swarmcg/venv/ready")
DISKS: Final = (Path("/dev/disk/by-id/virtio-scratch"), Path("/dev/loop7"))


def tier_command(
    options: Sequence[str], *, full: bool, kernel: str = "cloud", measured: bool = False
) -> list[str]:
    """The command in the guest: all of the tier that this kernel can show, or its smoke selection; under coverage if
    that is `measured`.
    """
    tool = ["-m", "coverage", "run"] if measured else []
    return [
        *("python", *tool, "-m", "pytest", *UNUSED),
        "--junitxml=/opt/swarmcg/results/junit.xml",
        *_selected(options, (ALL if full else SMOKE)[kernel]),
    ]


def _selected(options: Sequence[str], marks: str) -> list[str]:
    """The options come last: of two words for -m pytest heeds the second."""
    named = any(option.startswith("tests/") for option in options)
    return ["-m", marks, *(() if named else ("tests/systemd",)), *options]


def command_here(options: Sequence[str]) -> list[str]:
    """The smoke selection on this very machine, as root in a unit that systemd delegates to it."""
    disk = next((disk for disk in DISKS if disk.exists()), DISKS[-1])
    environment = run.ENVIRONMENT | {"SWARMCG_TEST_DISK": str(disk), "CHECKOUT": str(image.ROOT)}
    unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--service-type=exec"]
    properties = ["--property=Delegate=yes", "--property=OOMPolicy=continue"]
    return [
        *([] if os.geteuid() == 0 else ["sudo"]),
        *(*unit, *properties, f"--working-directory={image.ROOT}"),
        *(f"--setenv={name}={value}" for name, value in environment.items() if name != "COVERAGE_FILE"),
        *(
            f"{MADE_FOR_TESTS.parent}/bin/python",
            "-m",
            "pytest",
            *UNUSED,
            *_selected(options, SMOKE["cloud"]),
        ),
    ]


def suites() -> tuple[str, ...]:
    """Those that there is time for: all, or the first alone when even its image has to be built."""
    return image.SUITES if image.find(image.SUITES[0]) else image.SUITES[:1]


def run_in_machine(suite: str, options: Sequence[str]) -> int:
    """The smoke selection's exit status in a fresh machine of this suite. Raises debian.UnavailableError."""
    if os.geteuid() != 0 and image.find(suite) is None:
        raise debian.UnavailableError(f"the image of {suite} is not in the cache, and building it needs root")
    return run.run(image.build(suite), tier_command(options, full=False), run.RESULTS / suite)
