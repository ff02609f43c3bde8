"""What systemctl says is taken in; one that says nothing is not waited for. The machine of systemd has a real one."""

import os
import time
from pathlib import Path

import pytest

from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.doctor.look import systemd
from swarmcg.doctor.seen import Systemd

HOST = Hierarchy(mount="/nowhere", writable=True, own=None, v1=frozenset(), systemd=True)
ANSWERS = """#!/bin/sh
case $1 in
--version) echo "systemd 252 (252.39-1~deb12u1)"; echo "+PAM +AUDIT" ;;
show) printf 'LoadState=loaded\\nActiveState=active\\nDelegate=yes\\nControlGroup=/a=b\\n' ;;
esac
"""


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path / "systemctl"


def seen(systemctl: Path, script: str) -> Systemd | None:
    systemctl.write_text(script)
    systemctl.chmod(0o755)
    return systemd.look_at_systemd(HOST)


def test_version_and_unit(systemctl: Path) -> None:
    unit = {"LoadState": "loaded", "ActiveState": "active", "Delegate": "yes", "ControlGroup": "/a=b"}
    assert seen(systemctl, ANSWERS) == Systemd(version=252, bots_unit=unit)


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 1", "#!/bin/sh\necho nonsense"])
def test_one_that_fails(systemctl: Path, script: str) -> None:
    assert seen(systemctl, script) == Systemd(version=None, bots_unit={})


@pytest.mark.usefixtures("systemctl")
def test_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert systemd.look_at_systemd(HOST) == Systemd(version=None, bots_unit={})


def test_one_that_does_not_answer(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_WITHIN_S", 0.2)
    begun = time.monotonic()
    assert seen(systemctl, "#!/bin/sh\nexec sleep 600") == Systemd(version=None, bots_unit={})
    assert time.monotonic() - begun < 60  # of 600


def test_a_user_whose_manager_does_not_run(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    found = seen(systemctl, ANSWERS)
    assert found is not None
    assert found.delegated is None


def test_what_a_user_s_manager_was_given(
    systemctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    manager = tmp_path / "cg/user.slice/user-12345.slice/user@12345.service"
    manager.mkdir(parents=True)
    (manager / "cgroup.controllers").write_text("cpu memory pids\n")
    systemctl.write_text(ANSWERS)
    systemctl.chmod(0o755)
    host = Hierarchy(mount=str(tmp_path / "cg"), writable=True, own=None, v1=frozenset(), systemd=True)
    found = systemd.look_at_systemd(host)
    assert found is not None
    assert found.delegated == frozenset({"cpu", "memory", "pids"})


def test_where_systemd_does_not_run_nobody_is_asked() -> None:
    host = Hierarchy(mount=None, writable=False, own=None, v1=frozenset(), systemd=False)
    assert systemd.look_at_systemd(host) is None
