"""The Vagrantfile is one for Vagrant; scripts/vagrant-check really starts it."""

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from checks import debian

ROOT: Final = Path(__file__).parents[2]


@pytest.mark.parametrize("box", ["", "debian/bookworm64"], ids=["our own box", "a public box"])
def test_vagrant_finds_the_file_valid(box: str, tmp_path: Path) -> None:
    assert debian.provide("vagrant", "vagrant", "vagrant-libvirt"), (
        "vagrant is missing and could not be installed"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "VAGRANT_DOTFILE_PATH": str(tmp_path / ".vagrant"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
    }
    chosen = {"SWARMCG_VAGRANT_BOX": box} if box else {}
    done = subprocess.run(
        ["vagrant", "validate"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env=environment | chosen,
    )
    assert (done.returncode, "validated successfully" in done.stdout) == (0, True), done.stdout + done.stderr
