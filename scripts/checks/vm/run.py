"""Runs one command in a fresh machine: checkout and command go in on a disk, the results come out on another."""

import io
import os
import re
import shlex
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from checks.vm import cache, qemu
from checks.vm.image import ROOT, Image
from checks.vm.kernel import Kernel

RESULTS: Final = ROOT / ".cache" / "vm"
"""Where results lie if not told otherwise, a directory a suite."""
TIME_LIMIT: Final = 900.0
NO_EXIT_STATUS: Final = 99
STARTS: Final = 3
"""An emulated machine's kernel can die at its boot: seen once in some hundred boots, with Linux 6.12 on QEMU 7.2, at an
instruction that the kernel was just patching (a breakpoint that was gone when the trap looked for it)."""
PACKING_S: Final = 40
"""Of the time limit, what is kept for taking the results out."""
RESULTS_BYTES: Final = 256 << 20
SCRATCH_BYTES: Final = 256 << 20
PLACE: Final = "/opt/swarmcg"
# Directories that tools leave in a checkout.
NOT_OURS: Final = frozenset(
    (
        *(".git", ".venv", ".cache", ".vagrant", ".hypothesis", "__pycache__", "build", "dist"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache"),
    )
)
SHELL: Final = ("setsid", "--ctty", "--wait", "bash", "--login", "-i")
ENVIRONMENT: Final = {
    "PATH": f"{PLACE}/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "CHECKOUT": f"{PLACE}/checkout",
    "COVERAGE_FILE": f"{PLACE}/results/data",
    "HYPOTHESIS_STORAGE_DIRECTORY": "/run/hypothesis",
    "SWARMCG_TEST_VM": "yes",
    "SWARMCG_TEST_DISK": "/dev/disk/by-id/virtio-scratch",
    "SWARMCG_TEST_PATIENCE": "20",
    "SWARMCG_TEST_SOON": "120",
}


def run(
    image: Image,
    command: Sequence[str],
    keep: Path,
    *,
    kernel: Kernel | None = None,
    extra: Sequence[Path] = (),
    options: tuple[str, ...] = (),
    time_limit: float = TIME_LIMIT,
    terminal: bool = False,
) -> int:
    """Run the command as root in the checkout's copy, with its results in `keep` afterwards; return its exit status.

    Without a kernel the image's own is started. `extra` files lie in /opt/swarmcg/extra. When the machine left no exit
    status, NO_EXIT_STATUS is returned. When its kernel panics before the command begins, it is started again. The disks
    are files without a name, so nothing of them is left whatever ends this script.
    """
    with (
        _file() as payload,
        _file(RESULTS_BYTES) as results,
        _file(SCRATCH_BYTES) as scratch,
        _file() as said,
    ):
        pack(payload, command if terminal else limited(command, time_limit), extra)
        disks = {"payload": payload, "results": results, "scratch": scratch}
        for _ in range(STARTS):
            qemu.boot(
                *(image, kernel or Kernel(image.kernel), disks, None if terminal else said),
                options=options,
                time_limit=time_limit,
            )
            if not died_at_boot(said):
                break
            print("scripts/vm: the kernel died before the command began", file=sys.stderr)
        _unpack(results, keep)
        said.seek(0)
        (keep / "console").write_bytes(said.read())
    try:
        return int((keep / "exit-status").read_text())
    except (OSError, ValueError):
        print("scripts/vm: the machine ended without an exit status", file=sys.stderr)
        return NO_EXIT_STATUS


def died_at_boot(said: IO[bytes]) -> bool:
    """Whether the start that the console tells of ended in a panic before run-payload said a word."""
    said.seek(0)
    console = said.read()
    return b"Kernel panic" in console and not re.search(rb"guest: \S+, systemd ", console)


def _file(size: int = 0) -> IO[bytes]:
    file = tempfile.TemporaryFile(dir=cache.place())  # noqa: SIM115  the caller's with statement closes it
    os.truncate(file.fileno(), size)
    return file


def pack(payload: IO[bytes], command: Sequence[str], extra: Sequence[Path]) -> None:
    """Write the archive that the guest unpacks: the checkout, the extra files, and the command as a script."""
    with tarfile.open(fileobj=payload, mode="w") as archive:
        for name in _files():
            archive.add(ROOT / name, f"checkout/{name}", recursive=False, filter=_roots)
        for path in extra:
            archive.add(path, f"extra/{path.name}", filter=_roots)
        script = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in _environment().items())
        script += f"cd {PLACE}/checkout && exec {shlex.join(command)}\n"
        entry = _roots(tarfile.TarInfo("command"))
        entry.size = len(script.encode())
        archive.addfile(entry, io.BytesIO(script.encode()))
    payload.flush()


def limited(command: Sequence[str], time_limit: float) -> list[str]:
    """The command with what it has of the time limit, which counts from about the guest's boot on."""
    left = f"$(({time_limit - PACKING_S:.0f} - $(cut -d. -f1 /proc/uptime)))"
    script = f'left={left}; exec timeout --foreground -s INT -k 10 $((left > 1 ? left : 1)) "$@"'
    return ["sh", "-c", script, "sh", *command]


def _environment() -> dict[str, str]:
    colour = {"FORCE_COLOR": "1"} if sys.stdout.isatty() else {"NO_COLOR": "1", "SYSTEMD_COLORS": "0"}
    return ENVIRONMENT | colour | {name: os.environ[name] for name in ("CI", "TERM") if name in os.environ}


def _files() -> Iterator[str]:
    """What belongs to the checkout, by name alone: there need not be a git, nor a repository of this user's."""
    for directory, below, names in os.walk(ROOT):
        below[:] = sorted(set(below) - NOT_OURS)
        place = os.path.relpath(directory, ROOT)
        yield from (os.path.normpath(f"{place}/{name}") for name in sorted(set(names) - {".git"}))


def _roots(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Root's own, and readable by the guest's users, whatever this user and its umask are."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode |= 0o555 if entry.mode & 0o100 else 0o444
    return entry


def _unpack(results: IO[bytes], keep: Path) -> None:
    shutil.rmtree(keep, ignore_errors=True)
    keep.mkdir(parents=True)
    results.seek(0)
    try:
        with tarfile.open(fileobj=results, mode="r:") as archive:
            # Python before 3.11.4, as Debian 12 has it, knows no filters: there the attribute means nothing.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(keep)  # noqa: S202  what our own machine packed
    except tarfile.ReadError:
        print("scripts/vm: no results came back", file=sys.stderr)
