"""Doctor in a machine of systemd that was started otherwise. It needs the image."""

import json
import subprocess
from pathlib import Path
from typing import Final

from swarmcg.doctor.check import Check

ROOT: Final = Path(__file__).parents[2]
SOON_S: Final = 300.0


def test_a_hybrid_host_of_systemd_without_pressure_stall_information(tmp_path: Path) -> None:
    results = tmp_path / "results"
    words = ("--append", "systemd.unified_cgroup_hierarchy=0", "--append", "psi=0", "--results", str(results))
    inside = ("sh", "-c", "swarmcg doctor --json >/opt/swarmcg/results/checks")
    command = [str(ROOT / "scripts" / "vm"), "run", *words, "--", *inside]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=SOON_S)
    found = {fields["check"]: Check(**fields) for fields in json.loads((results / "checks").read_text())}
    assert (found["cgroup-mode"].state, found["cgroup-mode"].why.partition(".")[0]) == (
        "warn",
        "hybrid: cgroup v1 holds cpu, cpuset, hugetlb, io, memory, pids, rdma",
    )
    assert found["controller.memory"].state == found["bots-unit"].state == found["psi"].state == "warn"
    assert "switched off (psi=0)" in found["psi"].why
    assert [check for check in found.values() if check.state == "fail"] == []
