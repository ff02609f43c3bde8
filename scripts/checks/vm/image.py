"""The machine's disk and kernel, built from Debian's packages through this machine's own apt sources."""

import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from checks import debian, wheels
from checks.vm import cache

ROOT: Final = Path(__file__).resolve().parents[3]
GUEST: Final = ROOT / "scripts" / "guest"
SUITES: Final = tuple(wheels.PYTHON)
STARTED: Final = time.monotonic()
DISK_SIZE: Final = "3G"
PLACE: Final = "opt/swarmcg"
BESIDE_THE_DISK: Final = ("vmlinuz", "initrd", "ssh-key")
# The project's own part of the image: enough to install it as editable. Its code comes with each run.
SKELETON: Final = ("pyproject.toml", "README.md", "LICENSE")
OURS: Final = ("lint", "parallel")
"""Extras for the checks on this machine alone."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a machine is started from: an ext4 disk without partitions, and a kernel that is handed to QEMU.

    With an initrd the root disk may be a virtio one. The key opens the user vagrant's account.
    """

    kernel: Path
    initrd: Path
    disk: Path
    ssh_key: Path


def find(suite: str) -> Image | None:
    """The suite's image, if it was built and nothing that it is made from has changed since."""
    directory = cache.find(_names(suite)["image"])
    return None if directory is None else _image(directory)


def build(suite: str) -> Image:
    """The suite's image, built unless it is there. Raises debian.UnavailableError, which says what is missing."""
    if ready := find(suite):
        return ready
    _need(
        ("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs"), ("depmod", "kmod"), ("unshare", "util-linux")
    )
    names = _names(suite)
    stock = cache.keep(
        f"wheels-{suite}", names["wheels"], lambda making: wheels.download(suite, requirements(), making)
    )
    _told("wheels", suite)
    system = cache.keep(f"system-{suite}", names["system"], lambda making: _make_system(suite, making))
    _told("system", suite)
    made = cache.keep(f"image-{suite}", names["image"], lambda making: _make_image(system, stock, making))
    _told("image", suite)
    return _image(made)


def _image(directory: Path) -> Image:
    return Image(
        kernel=directory / "vmlinuz",
        initrd=directory / "initrd",
        disk=directory / "disk",
        ssh_key=directory / "ssh-key",
    )


def _told(what: str, suite: str) -> None:
    print(f"scripts/vm: {what} of {suite} ready after {time.monotonic() - STARTED:.0f} s", flush=True)


def _names(suite: str) -> dict[str, str]:
    """What the parts of an image are called in the cache: each after all that it is made from."""
    own = [Path(__file__).read_bytes(), suite.encode(), debian.sources_of(suite).encode()]
    system = cache.key([*own, *(path.read_bytes() for path in sorted(GUEST.iterdir()))])
    stock = cache.key([suite.encode(), *(line.encode() for line in requirements())])
    project = (ROOT / "pyproject.toml").read_bytes().partition(b"\n[tool.")[0]
    image = cache.key([system.encode(), stock.encode(), project])
    return {
        "system": f"system-{suite}-{system}",
        "wheels": f"wheels-{suite}-{stock}",
        "image": f"image-{suite}-{image}",
    }


def _need(*tools: tuple[str, str]) -> None:
    if missing := [package for tool, package in tools if not debian.provide(tool, package)]:
        raise debian.UnavailableError(f"install {', '.join(missing)}")


def requirements() -> list[str]:
    """All that a guest's environment is made of: to run, to test, and to install the project as editable.

    What only this side of it needs is no part of it, and an extra that names others of the project adds nothing.
    """
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras: dict[str, list[str]] = project["project"]["optional-dependencies"]
    optional = [line for name, lines in extras.items() if name not in OURS for line in lines]
    listed = {
        *project["project"]["dependencies"],
        *optional,
        *project["build-system"]["requires"],
        "editables",
    }
    return sorted(line for line in listed if not line.startswith(project["project"]["name"]))


def _make_system(suite: str, making: Path) -> None:
    """A Debian made ready for tests, without a Python environment; its kernel and the like beside it."""
    root = making / "root"
    (making / "suite.sources").write_text(debian.sources_of(suite))
    packages = (GUEST / "packages").read_text().split()
    unneeded = [f"--dpkgopt=path-exclude=/usr/share/{place}/*" for place in ("man", "doc", "locale")]
    _call(
        [
            # Not --quiet, which keeps to itself why apt failed; what it says is shown only then.
            *("mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(packages)}"),
            *('--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "5"'),
            *("--dpkgopt=force-unsafe-io", *unneeded),
            f"--customize-hook={GUEST / 'unpack-kernel'}",
            *(suite, str(root), str(making / "suite.sources")),
        ]
    )
    shutil.copytree(GUEST, root / PLACE / "guest")
    for step in ("provision.sh machine", "furnish", "make-initrd"):
        script, *words = step.split()
        _call(["chroot", str(root), f"/{PLACE}/guest/{script}", *words])
    for name in BESIDE_THE_DISK:
        shutil.move(root / "boot" / name, making)


def _make_image(system: Path, stock: Path, making: Path) -> None:
    """A copy of the system with its Python environment, as an ext4 disk without partitions."""
    root = making / "root"
    _call(["cp", "--archive", "--reflink=auto", str(system / "root"), str(root)])
    checkout = root / PLACE / "checkout"
    (checkout / "src/swarmcg").mkdir(parents=True)
    (checkout / "src/swarmcg/__init__.py").touch()
    for name in SKELETON:
        shutil.copy(ROOT / name, checkout)
    shutil.copytree(stock, root / PLACE / "wheels")
    _call(["chroot", str(root), f"/{PLACE}/guest/provision.sh", "environment", f"/{PLACE}/wheels"])
    shutil.rmtree(root / PLACE / "wheels")
    disk = making / "disk"
    subprocess.run(["truncate", f"--size={DISK_SIZE}", str(disk)], check=True)
    features = ["-O", "^has_journal,^metadata_csum", "-E", "lazy_itable_init=1,root_owner=0:0", "-m", "0"]
    _call(["mke2fs", "-q", "-t", "ext4", *features, "-L", "swarmcg", "-d", str(root), str(disk)])
    shutil.rmtree(root)
    for name in BESIDE_THE_DISK:
        shutil.copy(system / name, making)


def _call(command: Iterable[str]) -> None:
    """Run it in mount and process namespaces of its own: what it mounts or starts ends with it, whatever ends this."""
    contained = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    ran = subprocess.run(
        [*contained, "--mount-proc", *command],
        check=False,
        text=True,
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
    )
    if ran.returncode:
        raise debian.UnavailableError(
            f"{next(iter(command))} ended with {ran.returncode}:\n{ran.stderr.strip()}"
        )
