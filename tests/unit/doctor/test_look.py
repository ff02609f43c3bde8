"""What is seen of a host: nothing hangs, nothing is changed, and what cannot be seen is absent."""

import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from swarmcg.doctor.look import look, place
from swarmcg.doctor.look.kernel import version
from swarmcg.doctor.look.places import kind_at, kinds, look_at_places
from swarmcg.doctor.look.python import look_at_python
from swarmcg.doctor.seen import Place

MOUNTINFO = [
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
    "23 22 0:5 / /var/lib rw - tmpfs tmpfs rw,mode=755",
    "24 22 0:6 / /srv/o rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w,volatile",
    "25 22 0:7 / /srv/p rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w",
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for purpose in ("STATE", "RUNTIME", "CACHE"):
        monkeypatch.setenv(f"SWARMCG_{purpose}_DIR", str(tmp_path / purpose.lower()))
    return tmp_path


def state() -> Place:
    found = {place.purpose: place for place in look_at_places({"/": "ext4"})}
    assert list(found) == ["state", "runtime", "cache"]
    return found["state"]


def test_this_host_can_be_looked_at_and_is_not_changed(here: Path) -> None:
    found = look()
    assert found.platform == sys.platform
    assert found.linux is not None
    assert found.linux.kernel.release == os.uname().release
    assert list(here.iterdir()) == []


def test_a_directory_that_is_to_be_made_is_judged_by_what_is_above_it(here: Path) -> None:
    found = state()
    assert (found.path, found.exists, found.kind) == (str(here / "state"), str(here), "ext4")
    assert found.answered
    assert found.directory
    assert found.writable
    assert found.syncs
    assert found.free_bytes is not None
    assert found.free_bytes > 0


def test_a_file_in_the_place_of_a_directory(here: Path) -> None:
    (here / "state").write_text("")
    assert not state().directory


def test_a_dangling_link_is_no_directory(here: Path) -> None:
    (here / "state").symlink_to(here / "nowhere")
    assert not state().directory


def test_a_file_system_that_does_not_answer_holds_up_nobody(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time; time.sleep(600)")
    monkeypatch.setattr(place, "__file__", str(slow))
    begun = time.monotonic()
    found = look_at_places({}, within=0.3)
    assert [place.answered for place in found] == [False] * 3
    assert time.monotonic() - begun < 60
    assert found[0].path == str(here / "state")


def test_who_cannot_be_killed_either_is_not_waited_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State D cannot be made here at will, so the kill is taken away; the processes end when somebody writes."""
    os.mkfifo(here / "fifo")
    fifo = os.open(here / "fifo", os.O_RDWR)  # so that nobody waits in open
    script = here / "deaf.py"
    script.write_text(f"import os; os.read(os.open({str(here / 'fifo')!r}, os.O_RDONLY), 1)")
    monkeypatch.setattr(place, "__file__", str(script))
    unkilled = []
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: unkilled.append(process.pid))
    begun = time.monotonic()
    assert not any(place.answered for place in look_at_places({}, within=0.3))
    assert time.monotonic() - begun < 60
    os.write(fifo, b"xxx")
    for pid in unkilled:
        os.waitpid(pid, 0)
    os.close(fifo)
    assert len(unkilled) == 3


def test_kinds_of_file_systems_by_the_longest_mount_point() -> None:
    found = kinds(MOUNTINFO)
    assert kind_at("/var/lib/swarmcg", found) == "tmpfs"
    assert kind_at("/var/library", found) == "ext4"
    assert kind_at("/srv/o/state", found) == "overlay,volatile"
    assert kind_at("/srv/p", found) == "overlay"
    assert kind_at("/", found) == "ext4"
    assert kind_at("/x", {}) == ""


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.1.0-44-amd64", (6, 1)), ("6.18.44", (6, 18)), ("5.10.0-rc1+", (5, 10)), ("odd", (0, 0))],
)
def test_a_kernel_s_version(release: str, expected: tuple[int, int]) -> None:
    assert version(release) == expected


def test_missing_packages_are_those_that_count_on_this_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    required = [
        "msgspec>=0.22",
        "no-such-package",
        "never-here>=1 ; sys_platform == 'win32'",
        "also-missing<2; sys_platform == 'linux'",
        "not-asked-for; extra == 'test'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: required)
    assert look_at_python().missing == ("also-missing", "no-such-package")


def test_what_was_never_installed_requires_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", nothing)
    assert look_at_python().missing == ()
