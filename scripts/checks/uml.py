"""A user-mode-linux guest: a kernel of Debian's, run as an ordinary process on this machine's own files.

    python -m checks.uml [--suite SUITE] [--append WORD] [--time-limit SECONDS] [COMMAND …]

runs the command in it, or without one the kernel tier of tests.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from checks import debian

ROOT: Final = Path(__file__).resolve().parents[2]
INIT: Final = Path(__file__).with_name("guest-init")
CACHE: Final = ROOT / ".cache" / "uml"
SUITES: Final = ("bookworm", "trixie")
MEMORY: Final = "768M"
TOOLS: Final = {
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mkswap": "util-linux",
    "mke2fs": "e2fsprogs",
    "ip": "iproute2",  # the guest's
}
NOISE: Final = r"/SELinux: /d; /mmapper_init/d"
"""What this kernel prints at every start although it is told to be quiet; a script for sed."""
SWAP_BYTES: Final = 64 << 20
DISK_BYTES: Final = 64 << 20
TIME_LIMIT: Final = 2400.0
NO_EXIT_STATUS: Final = 99
KERNEL_TIER: Final = ("python", "-m", "pytest", "-p", "no:cacheprovider", "tests/kernel")


def main() -> int:
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # so that what was made is removed
    parser = argparse.ArgumentParser(
        prog="scripts/uml", description="Runs a command, or the kernel tier, in a guest."
    )
    parser.add_argument(
        "--suite",
        default=debian.codename(),
        help="whose kernel: bullseye has 5.10, bookworm 6.1, trixie 6.12",
    )
    parser.add_argument(
        "--append", action="append", default=[], metavar="WORD", help="add it to the kernel's command line"
    )
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, metavar="SECONDS")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where results go (.cache/uml/SUITE)")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    command = asked.command[1:] if asked.command[:1] == ["--"] else asked.command
    try:
        kernel = find_kernel(asked.suite)
    except debian.UnavailableError as error:
        print(f"scripts/uml: {error}", file=sys.stderr)
        return NO_EXIT_STATUS
    keep = asked.keep or CACHE / asked.suite
    return run([*kernel, *asked.append], command or list(KERNEL_TIER), keep, asked.time_limit)


def find_kernel(suite: str) -> list[str]:
    """The command that starts the suite's kernel; raises debian.UnavailableError, which says why there is none."""
    missing = [tool for tool, package in TOOLS.items() if not debian.provide(tool, package)]
    if missing:
        packages = ", ".join(dict.fromkeys(TOOLS[tool] for tool in missing))
        raise debian.UnavailableError(f"{', '.join(missing)} missing; install {packages}")
    if suite == debian.codename():
        if not debian.provide("linux.uml", "user-mode-linux"):
            raise debian.UnavailableError("linux.uml is missing; install user-mode-linux")
        return ["linux.uml"]
    return debian.foreign_kernel(suite)


def run(kernel: list[str], command: list[str], keep: Path, time_limit: float) -> int:
    """Run the command in a fresh guest, whose results are then in `keep`; return its exit status.

    When the guest left no exit status, NO_EXIT_STATUS is returned.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="running-", dir=CACHE) as place,
        tempfile.TemporaryDirectory(prefix="swarmcg-uml-", dir=_memory_place()) as scratch,
    ):
        results = Path(place)
        results.chmod(0o1777)  # some tests run the program as another user, whose coverage counts as well
        (results / "environment").write_text(_exports(_environment(results, _modules(kernel))))
        (results / "command").write_text(f"exec {shlex.join(command)}\n")
        _boot([*_contained(), *kernel, *_parameters(results, Path(scratch))], scratch, time_limit)
        shutil.rmtree(keep, ignore_errors=True)
        shutil.copytree(results, keep)
    try:
        return int((keep / "exit-status").read_text())
    except (OSError, ValueError):
        print("scripts/uml: the guest ended without an exit status", file=sys.stderr)
        return NO_EXIT_STATUS


def _boot(command: list[str], scratch: str, time_limit: float) -> None:
    guest = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TMPDIR": scratch},
    )
    relay = subprocess.Popen(
        ["sed", "-u", "-e", "s/\\r//g", "-e", NOISE], stdin=guest.stdout
    )  # the guest's terminal ends lines by \r\n
    try:
        guest.wait(time_limit)
    except subprocess.TimeoutExpired:
        print(f"scripts/uml: the guest was ended after {time_limit:.0f} s", file=sys.stderr)
    finally:
        guest.kill()
        guest.wait()
        if guest.stdout is not None:
            guest.stdout.close()
        relay.wait()


def _contained() -> list[str]:
    """A PID namespace around the guest: it is many processes here, and a killed kernel leaves some of them.

    The parent death signal ends `unshare` with this script, `--kill-child` the namespace's PID 1 with `unshare`,
    and the kernel everything else with PID 1. That is a shell: as PID 1 a kernel that panics could not abort, and
    would spin. A user namespace clears the signal, so it comes first.
    """
    unprivileged = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
    return [
        *unprivileged,
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        '"$0" "$@"; exit',
    ]


def _parameters(results: Path, scratch: Path) -> list[str]:
    swap, disk = scratch / "swap", scratch / "disk"
    for path, size in ((swap, SWAP_BYTES), (disk, DISK_BYTES)):
        path.touch()
        os.truncate(path, size)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", disk], check=True)
    return [
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"mem={MEMORY}", f"init={INIT}"),
        *(f"ubd0={swap}", f"ubd1={disk}", f"uml_dir={scratch}"),
        *("con=null", "con0=null,fd:1", "quiet", "selinux=0", f"RESULTS={results}"),
    ]


def _modules(kernel: list[str]) -> Path:
    """Where the kernel's modules lie: another suite's beside it, in the directory that its command changes to."""
    own = next((word.partition("=")[2] for word in kernel if word.startswith("--chdir=")), "/")
    return Path(own, "usr/lib/uml/modules")


def _environment(results: Path, modules: Path) -> dict[str, str]:
    places = [str(ROOT), sys.base_prefix, str(modules)]
    return {
        "CHECKOUT": str(ROOT),
        "PLACES": " ".join(places),
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": "/run/hypothesis",
        "COVERAGE_FILE": str(results / "data"),
        "FORCE_COLOR" if sys.stdout.isatty() else "NO_COLOR": "1",
        "SWARMCG_TEST_GUEST": "yes",
        "SWARMCG_TEST_DISK": "/dev/ubdb",
        "SWARMCG_TEST_SWAP": "/dev/ubda",
        "SWARMCG_TEST_MODULES": str(modules),
    } | {name: os.environ[name] for name in ("CI",) if name in os.environ}


def _exports(variables: dict[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _memory_place() -> str | None:
    """A tmpfs with room for the guest's memory and disks, so that nothing of it is written to a disk."""
    shared = Path("/dev/shm")  # noqa: S108  a directory of our own is made in it
    needed = (int(MEMORY.removesuffix("M")) << 20) + SWAP_BYTES + DISK_BYTES
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > needed else None


if __name__ == "__main__":
    sys.exit(main())
