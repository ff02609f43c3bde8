"""The image as a Vagrant box, beside its kernel: what the Vagrantfile takes from .cache/box."""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from checks import debian
from checks.vm import cache
from checks.vm.image import ROOT, Image

PLACE: Final = ROOT / ".cache" / "box"
METADATA: Final = {"provider": "libvirt", "format": "qcow2", "virtual_size": 3}


def pack(image: Image) -> None:
    """Write the box, and give it to the owner of the checkout. A box of the same image is not written again."""
    if not debian.provide("qemu-img", "qemu-utils"):
        raise debian.UnavailableError("qemu-img is missing; install qemu-utils")
    with cache.alone():
        _pack(image)


def _pack(image: Image) -> None:
    name = image.disk.parent.name.replace("image", "swarmcg")
    if (PLACE / "name").exists() and (PLACE / "name").read_text().strip() == name:
        return
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    for file in (image.kernel, image.initrd, image.ssh_key):
        shutil.copy(file, PLACE)
    _write_box(image.disk, PLACE / "swarmcg.box")
    (PLACE / "name").write_text(f"{name}\n")  # the last: without it the box counts as not there
    owner = os.stat(ROOT)
    for path in (PLACE, *PLACE.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)


def _write_box(disk: Path, box: Path) -> None:
    with tempfile.TemporaryDirectory(dir=PLACE) as place, tarfile.open(box, "w") as archive:
        qcow2 = Path(place, "box.img")
        options = ["-c", "-o", "compression_type=zstd", "-f", "raw", "-O", "qcow2"]
        subprocess.run(["qemu-img", "convert", *options, str(disk), str(qcow2)], check=True)
        metadata = Path(place, "metadata.json")
        metadata.write_text(json.dumps(METADATA))
        for file in (metadata, qcow2):
            archive.add(file, file.name)
