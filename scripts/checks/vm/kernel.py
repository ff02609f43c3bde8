"""Debian's full kernel, which has what its cloud kernel lacks, soft RDMA devices; it starts the other one's image."""

import lzma
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from checks import debian
from checks.vm import cache
from checks.vm.image import Image

KERNELS: Final = ("cloud", "full")
# Before the root disk can be read, in this order. ext4 asks for crc32c by name when it is loaded, so modprobe cannot
# tell that it is needed.
FIRST: Final = ("crc32c_generic", "nvme", "ext4")
# What the machine loads by itself afterwards, for its disks, swap and devices; rdma_rxe asks for crc32 by name, too.
LATER: Final = (
    *("virtio_pci", "virtio_blk", "virtio_rng", "bfq", "zram", "lzo-rle", "loop", "dm-mod", "autofs4"),
    *("dummy", "ib_uverbs", "crc32_generic", "rdma_rxe"),
)
INIT: Final = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "$module" 2>/dev/null; done </first # some are for other processors
tries=0
until [ -b /dev/nvme0n1 ] || [ $tries = 100 ]; do $b sleep 0.1 && tries=$((tries + 1)); done
$b mount -t ext4 /dev/nvme0n1 /root || exec $b sh
$b cp -a /lib/modules/* /root/usr/lib/modules/
$b mount -o move /dev /root/dev
exec $b switch_root /root /sbin/init
"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What QEMU is handed. Without an initrd it reads the root disk by itself."""

    file: Path
    initrd: Path | None = None


def find(name: str, suite: str, image: Image) -> Kernel:
    """The kernel of this name for the suite's image, brought unless it is there. Raises debian.UnavailableError."""
    if name == "cloud":
        return Kernel(image.kernel)
    key = cache.key([Path(__file__).read_bytes(), suite.encode(), debian.sources_of(suite).encode()])
    made = cache.keep(f"kernel-{suite}", f"kernel-{suite}-{key}", lambda making: _make(suite, making))
    return Kernel(made / "vmlinuz", made / "initrd")


def _make(suite: str, making: Path) -> None:
    unpacked, tree = making / "unpacked", making / "tree"
    _unpack(suite, making / "archives", unpacked)
    version = next(unpacked.glob("boot/vmlinuz-*")).name.removeprefix("vmlinuz-")
    if not (unpacked / "lib").exists():  # since Debian 13 packages have it below /usr
        (unpacked / "lib").symlink_to("usr/lib")
    _call("depmod", "--basedir", unpacked, version)
    first, later = (_files(unpacked, version, names) for names in (FIRST, LATER))
    for name in dict.fromkeys((*first, *later)):
        _copy(unpacked / name, tree / name)
    for directory in ("bin", "dev", "root"):
        (tree / directory).mkdir()
    for index in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(unpacked / f"lib/modules/{version}" / index, tree / f"lib/modules/{version}")
    _call("depmod", "--basedir", tree, version)
    shutil.copy(next(unpacked.glob("**/bin/busybox")), tree / "bin/busybox")
    (tree / "first").write_text("".join(f"/{name.removesuffix('.xz')}\n" for name in first))
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    _call(
        "sh",
        "-ec",
        'cd "$0" && find . | bin/busybox cpio -o -H newc | gzip -1 >"$1"',
        tree,
        making / "initrd",
    )
    shutil.move(next(unpacked.glob("boot/vmlinuz-*")), making / "vmlinuz")
    for done in (unpacked, tree, making / "archives"):
        shutil.rmtree(done)


def _unpack(suite: str, work: Path, place: Path) -> None:
    """The package that the one without a version depends on, and a busybox that needs no library."""
    (latest,) = debian.download(["linux-image-amd64"], suite, work)
    depends = _call("dpkg-deb", "--field", latest, "Depends")
    latest.unlink()
    for archive in debian.download([depends.split()[0], "busybox-static"], suite, work):
        _call("dpkg-deb", "--extract", archive, place)


def _files(root: Path, version: str, names: Iterable[str]) -> list[str]:
    """The files of these modules and of all that they need, each once, in the order in which they can be loaded."""
    asked = ("--set-version", version, "--show-depends", "--all", *names)
    shown = _call("modprobe", "--dirname", root, *asked)
    lines = [line.split()[1] for line in shown.splitlines() if line.startswith("insmod ")]
    return list(dict.fromkeys(str(Path(line).relative_to(root)) for line in lines))


def _copy(source: Path, target: Path) -> None:
    """Unpacked, since the first ones are loaded by a program that can do no other."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".xz":
        target.with_suffix("").write_bytes(lzma.decompress(source.read_bytes()))
    else:
        shutil.copy(source, target)


def _call(*command: str | Path) -> str:
    ran = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    if ran.returncode:
        raise debian.UnavailableError(f"{command[0]} ended with {ran.returncode}: {ran.stderr.strip()}")
    return ran.stdout
