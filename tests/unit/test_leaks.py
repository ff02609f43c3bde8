"""The leak check sees each kind of leak, and lets pass what is merely ending."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LEAKS = {
    "descriptor": "keep.append(os.open('/dev/null', os.O_RDONLY))",
    "thread": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "process": "keep.append(subprocess.Popen(['sleep', '30']))",
    "zombie": "os.posix_spawn('/bin/true', ['true'], {})",
    "orphan": "subprocess.run(['sh', '-c', 'setsid sleep 30 >/dev/null 2>&1 & exit'], check=True)",
}
HARMLESS = {
    "nothing": "pass",
    "ends_soon": "threading.Thread(target=time.sleep, args=(0.2,)).start()",
    "closed": "os.close(os.open('/dev/null', os.O_RDONLY))",
}
HEAD = """
import os, subprocess, threading, time
import pytest

keep = []

@pytest.fixture(scope="session", autouse=True)
def end_what_was_leaked():
    yield
    from tests import leaks
    for _, name in leaks.processes({os.getpid()}):
        os.kill(int(name.split()[0]), 9)
    for popen in keep:
        if isinstance(popen, subprocess.Popen):
            popen.wait()
"""


def report_on(directory: Path, bodies: dict[str, str]) -> str:
    tests = "".join(f"\n\ndef test_{name}():\n    {body}\n" for name, body in bodies.items())
    (directory / "test_them.py").write_text(HEAD + tests)
    options = ["-p", "tests.leaks", "-p", "no:randomly", "-p", "no:cacheprovider", "-rA", "-c", "/dev/null"]
    command = [sys.executable, "-m", "pytest", *options, f"--rootdir={directory}", "."]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
        "SWARMCG_TEST_PATIENCE": "0.5",
    }
    return subprocess.run(
        command, cwd=directory, env=environment, check=False, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report_on(tmp_path_factory.mktemp("leaky"), LEAKS | HARMLESS)


@pytest.mark.parametrize("kind", LEAKS)
def test_a_leak_is_seen(report: str, kind: str) -> None:
    assert f"ERROR test_them.py::test_{kind} - Failed: this test left behind" in report


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_is_gone_in_a_moment_is_none(report: str, kind: str) -> None:
    assert f"PASSED test_them.py::test_{kind}" in report
    assert f"ERROR test_them.py::test_{kind}" not in report


def test_the_report_names_what_was_left(report: str) -> None:
    assert "-> /dev/null" in report
    assert "sleep 30" in report
