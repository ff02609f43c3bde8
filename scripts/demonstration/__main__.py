"""Finds a place where limits can be in force, and shows three bots there.

    scripts/demo [--here]

exit status: 0 when everything was shown, 77 when the limits could not be, 1 when something went wrong.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from checks import debian, uml
from demonstration.show import show
from swarmcg.cgroup.hierarchy import Hierarchy, look

NOT_SHOWN: Final = 77
MODES: Final = {
    "hybrid": "its controllers are in cgroup version 1",
    "legacy": "it has cgroup version 1 alone",
    "none": "no cgroups are mounted",
}
HERE: Final = ("-m", "demonstration", "--here")
SCRIPTS: Final = Path(__file__).resolve().parents[1]
TIME_LIMIT: Final = 300.0


def main() -> int:
    """Shows it here, or has it shown where limits can be enforced."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that every bot is ended
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--here", action="store_true", help="look for no better place than this one")
    asked = parser.parse_args()
    seen = look()
    if asked.here:
        return _here(limits=seen.mode == "unified")
    why = _without_limits(seen)
    if not why:
        return _in_scope() if seen.systemd else _here(limits=True)
    print(f"{why}: showing it in a user-mode-linux guest\n", flush=True)
    try:
        kernel = uml.find_kernel(debian.codename())
    except debian.UnavailableError as error:
        print(f"There is no guest either: {error}\n", flush=True)
        return _here(limits=False)
    return uml.run(kernel, _in_guest(), uml.CACHE / "demo", TIME_LIMIT)


def _without_limits(seen: Hierarchy) -> str:
    """Why no limit can be in force on this host; an empty string where it can."""
    if seen.mode != "unified":
        return f"This host cannot enforce limits ({MODES[seen.mode]})"
    if not seen.writable:
        return "This host cannot enforce limits (its cgroup file system is read-only)"
    if os.geteuid() and not seen.systemd:
        return "This user may make no cgroups here"
    return ""


def _in_scope() -> int:
    """A scope of its own that systemd delegates, so that limits can be set in it."""
    run = shutil.which("systemd-run")
    if run is None:
        print("systemd-run is missing; install systemd's programs", file=sys.stderr)
        return 1
    user = ["--user"] if os.geteuid() else []
    command = [run, *user, "--scope", "--quiet", "-p", "Delegate=yes", sys.executable, *HERE]
    return subprocess.run(command, check=False, cwd=SCRIPTS).returncode


def _in_guest() -> list[str]:
    return ["env", f"--chdir={SCRIPTS}", sys.executable, *HERE]


def _here(*, limits: bool) -> int:
    well = show(limits=limits)
    if not well:
        return 1
    if not limits:
        print("\nlimits NOT shown: this host enforces none; what was asked for stands in the reports")
        return NOT_SHOWN
    return 0


if __name__ == "__main__":
    sys.exit(main())
