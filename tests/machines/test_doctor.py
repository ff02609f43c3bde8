"""Doctor in a machine of systemd that was started otherwise. It needs the image."""

import json
import subprocess
from pathlib import Path
from typing import Final

from swarmcg.cgroup.hierarchy import CONTROLLERS
from swarmcg.doctor.check import Check

ROOT: Final = Path(__file__).parents[2]
SOON_S: Final = 300.0


def test_a_hybrid_host_of_systemd_without_pressure_stall_information(tmp_path: Path) -> None:
    results = tmp_path / "results"
    words = ("--append", "systemd.unified_cgroup_hierarchy=0", "--append", "psi=0", "--results", str(results))
    # In a service of its own, as from a login: what runs here shares a cgroup that was delegated to all of it.
    doctor = "systemd-run --quiet --wait --pipe --collect $(command -v swarmcg) doctor --json"
    script = f"cd /opt/swarmcg/results; cp /proc/self/mounts .; {doctor} >checks"
    inside = ("sh", "-c", script)
    command = [str(ROOT / "scripts" / "vm"), "run", *words, "--", *inside]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=SOON_S)
    found = {fields["check"]: Check(**fields) for fields in json.loads((results / "checks").read_text())}
    assert found["cgroup-mode"].state == "warn"
    held = found["cgroup-mode"].why.partition(".")[0].removeprefix("hybrid: cgroup v1 holds ").split(", ")
    assert held == sorted(mounted(results / "mounts").intersection(CONTROLLERS))
    assert {"cpu", "cpuset", "hugetlb", "io", "memory", "pids"} <= set(held)
    assert found["controller.memory"].state == found["bots-unit"].state == found["psi"].state == "warn"
    assert "switched off (psi=0)" in found["psi"].why
    assert [check for check in found.values() if check.state == "fail"] == []


def mounted(mounts: Path) -> set[str]:
    """The controllers of version 1 in /proc/self/mounts, by the names that version 2 gives them."""
    fields = (line.split() for line in mounts.read_text().splitlines())
    names = {name for _, _, kind, options, *_ in fields if kind == "cgroup" for name in options.split(",")}
    return {{"blkio": "io", "cpuacct": "cpu"}.get(name, name) for name in names}
