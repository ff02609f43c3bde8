"""tests/contract/mapped_disks.py, and where the weight of a mapped device goes: BFQ shares it in this tier's kernel."""

from pathlib import Path

import pytest

from tests.contract.mapped_disks import *  # noqa: F403  its tests are collected here
from tests.host.command import Command
from tests.systemd.machine import device, number, only_report, resources, sharing

pytestmark = pytest.mark.full


def test_the_weight_of_a_mapped_device_is_that_of_the_disk_below(
    home: Path, tmp_path: Path, mapped: Path, scratch_disk: Path
) -> None:
    command = Command(home, tmp_path)
    weight = resources(tmp_path, blockIO={"weightDevice": [{**number(mapped), "weight": 300}]})
    refused = command("run", *weight, "--", "true")
    assert (refused.returncode, f"echo bfq > /sys/block/{scratch_disk.name}" in refused.stderr) == (125, True)
    with sharing("bfq", scratch_disk):
        assert command("run", *weight, "--", "true").returncode == 0
    assert f"{device(scratch_disk)} 300" in only_report(command).limits["io.bfq.weight"]
