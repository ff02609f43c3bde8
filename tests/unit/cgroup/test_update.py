"""How an update fails: what it puts back, and what it says. Plain directories stand for slices."""

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swarmcg.cgroup import find, slice_update as module
from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.cgroup.limits import limits_of
from swarmcg.cgroup.network.refusal import network_errors
from swarmcg.cgroup.slice import Slice
from swarmcg.cgroup.update import preview, update
from swarmcg.errors import UnenforceableError, UpdateError
from swarmcg.resources import Cpu, InterfacePriority, LinuxResources, Memory, Network, Networking, Pids
from tests.limits_model import FRESH

ASKED = LinuxResources(pids=Pids(limit=7), memory=Memory(limit=1 << 20), cpu=Cpu(quota=5000))
BEFORE = {"pids.max": "max", "memory.max": "max", "cpu.max": "max 100000"}


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pure version 2 host whose files are plain ones."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids")
    host = Hierarchy(mount=str(tmp_path), writable=True, own=str(tmp_path), v1=frozenset(), systemd=False)
    monkeypatch.setattr(find, "look", lambda **_: host)
    monkeypatch.setattr(module, "exchange_line", write)
    return tmp_path


@pytest.fixture
def one(top: Path) -> str:
    return made(top, "one")


def made(top: Path, name: str) -> str:
    home = top / "home"
    home.mkdir(exist_ok=True)
    (home / "cgroup.controllers").write_text("cpu memory pids")
    path = f"{home}/{name}.0123456789abcdef"
    Slice.create(path, {"bot_id": name, "incarnation": "0123456789abcdef"}).close()
    for file, text in FRESH.items():
        Path(path, file).write_text(f"{text}\n")
    return path


def shown(path: str) -> dict[str, str]:
    return {file: Path(path, file).read_text().strip() for file in BEFORE}


def write(path: str, line: str) -> str:
    """As a cgroup file takes it: in place of what was there."""
    Path(path).write_text(f"{line}\n")
    return line


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], BaseException | None]) -> None:
    """Writes go through, but for those to paths that ``fails`` gives an error for."""

    def write_or_fail(path: str, line: str) -> str:
        if error := fails(path):
            raise error
        return write(path, line)

    monkeypatch.setattr(module, "exchange_line", write_or_fail)


def test_what_is_written_is_recorded(one: str) -> None:
    update([one], ASKED)
    assert shown(one) == {"pids.max": "7", "memory.max": "1048576", "cpu.max": "5000 100000"}
    held = Slice.visit(one)
    assert limits_of(held).limits == shown(one)
    held.close()


def test_where_putting_back_fails_too_the_error_lists_exactly_what_is_in_force(
    one: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[str] = []

    def fails(path: str) -> OSError | None:
        if path.endswith("pids.max"):  # the last one
            broken.append(path)
        return OSError(5, "Input/output error") if broken else None

    failing(monkeypatch, fails)
    with pytest.raises(UpdateError) as caught:
        update([one], ASKED)
    assert caught.value.in_force == {f"{one}/{file}": text for file, text in shown(one).items()}
    assert caught.value.in_force != {f"{one}/{file}": text for file, text in BEFORE.items()}
    for file, text in shown(one).items():
        assert f"{one}/{file} {text!r}" in str(caught.value)
    assert "by hand" in (caught.value.remedy or "")


def test_what_could_not_be_put_back_is_put_back_by_the_next_update(
    one: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, lambda _: OSError(5, "x") if shown(one)["memory.max"] != "max" else None)
    with pytest.raises(UpdateError):
        update([one], ASKED)
    assert shown(one)["memory.max"] == "1048576"
    monkeypatch.setattr(module, "exchange_line", write)
    update([one], LinuxResources(cpu=Cpu(period=50000)))
    assert shown(one) == BEFORE | {"cpu.max": "max 50000"}


def test_ctrl_c_in_the_midst_puts_everything_back(one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pressed: list[str] = []

    def fails(path: str) -> KeyboardInterrupt | None:
        if not path.endswith("memory.max") or pressed:
            return None
        pressed.append(path)
        return KeyboardInterrupt()

    failing(monkeypatch, fails)
    with pytest.raises(KeyboardInterrupt):
        update([one], ASKED)
    assert pressed
    assert shown(one) == BEFORE


@pytest.mark.parametrize("call", range(2))
@pytest.mark.parametrize("done", [False, True])
def test_ctrl_c_at_the_end_puts_everything_back_and_leaves_nothing_to_the_next_update(
    top: Path, one: str, monkeypatch: pytest.MonkeyPatch, call: int, done: bool
) -> None:
    two, finish, calls = made(top, "two"), module.SliceUpdate.finish, itertools.count()

    def interrupted(member: module.SliceUpdate) -> None:
        this = next(calls)
        if this != call or done:
            finish(member)
        if this == call:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.SliceUpdate, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        update([one, two], ASKED)
    for path in (one, two):
        assert shown(path) == BEFORE
        held = Slice.visit(path)
        assert (held.recall("updating"), limits_of(held).limits) == (None, {})
        held.close()


def test_a_slice_that_goes_in_the_midst_has_ended_and_the_others_are_as_before(
    top: Path, one: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = made(top, "two")

    def fails(path: str) -> OSError | None:
        if path.startswith(two):
            shutil.rmtree(two, ignore_errors=True)
            return FileNotFoundError(2, "gone")
        return None

    failing(monkeypatch, fails)
    with pytest.raises(UpdateError, match="has ended") as caught:
        update([one, two], ASKED)
    assert caught.value.path == two
    assert caught.value.in_force == {}
    assert shown(one) == BEFORE


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
@pytest.mark.parametrize(
    "place",
    [
        "slice_update.read_value",
        "slice_update.exchange_line",
        "slice.write_attribute",
        "slice.network.install",
    ],
)
def test_a_slice_that_goes_while_anything_is_done_to_it_has_ended(
    one: str, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    """Whatever the kernel says of it then, and whatever that means of a slice that is there."""

    def fail(*_: object, **__: object) -> Any:
        shutil.rmtree(one, ignore_errors=True)
        packets = network_errors("The limits on packets could not be put in force", one)
        with packets if place.endswith("install") else contextlib.nullcontext():
            raise OSError(number, os.strerror(number))

    abilities = Networking(links={"cable0": None})
    monkeypatch.setattr("swarmcg.cgroup.update.network.probe", lambda: abilities)
    monkeypatch.setattr(f"swarmcg.cgroup.{place}", fail)
    wanted = Network(priorities=(InterfacePriority(name="cable0", priority=5),))
    with pytest.raises(UpdateError, match="has ended") as caught:
        update([one], msgspec.structs.replace(ASKED, network=wanted))
    assert caught.value.path == one
    assert caught.value.in_force == {}


def test_a_part_of_the_kernel_that_is_missing_is_told_while_the_slice_is_there(
    one: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, lambda _: FileNotFoundError(errno.ENOENT, "gone"))
    with pytest.raises(UpdateError, match="could not be changed") as caught:
        update([one], ASKED)
    assert caught.value.errno == errno.ENOENT
    assert "every value is as it was before" in str(caught.value)


def test_a_slice_that_is_gone_has_ended(one: str) -> None:
    shutil.rmtree(one)
    for act in (lambda: update([one], ASKED), lambda: preview(one, ASKED)):
        with pytest.raises(UpdateError, match="has ended"):
            act()


def test_who_waits_too_long_for_another_update_is_told(one: str) -> None:
    fd = os.open(f"{one}/main", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(UpdateError, match="by somebody else"):
        update([one], ASKED, within=0.05)
    assert shown(one) == BEFORE
    assert preview(one, ASKED)[1]["pids.max"] == "max"  # waits for nobody
    os.close(fd)
    update([one], ASKED, within=0.05)


@pytest.mark.parametrize("garbled", [{"undo": 5}, {"undo": [["pids.max"]]}, {}])
def test_a_record_that_somebody_garbled_hinders_nobody(one: str, garbled: dict[str, Any]) -> None:
    held = Slice.visit(one)
    held.remember("updating", garbled)
    held.remember("limits", {"limits": 5})
    update([one], ASKED)
    assert held.recall("updating") is None
    assert shown(one)["pids.max"] == "7"
    held.close()


def test_an_owner_s_lock_is_no_hindrance(one: str) -> None:
    owner = Slice.adopt(one)
    assert owner is not None
    update([one], ASKED)
    owner.close()


@pytest.mark.parametrize("garbled", [b"[]", b"5", b"[" * 3_000, b"\xff"])
def test_an_attribute_that_somebody_garbled_counts_for_nothing(one: str, garbled: bytes) -> None:
    namespace = "trusted" if os.geteuid() == 0 else "user"
    os.setxattr(one, f"{namespace}.swarmcg.updating", garbled)
    held = Slice.visit(one)
    assert held.recall("updating") is None
    held.close()
    update([one], ASKED)
    assert shown(one)["pids.max"] == "7"


def test_a_refusal_speaks_of_the_change_and_not_of_a_start(one: str) -> None:
    with pytest.raises(UnenforceableError) as caught:
        update([one], LinuxResources(memory=Memory(swappiness=10)))
    assert "To change the rest" in (caught.value.remedy or "")
    assert "start" not in (caught.value.remedy or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes directories of others")
def test_attributes_that_the_owner_of_a_directory_may_write_count_for_nobody_else(one: str) -> None:
    held = Slice.visit(one)
    os.setxattr(one, "user.swarmcg.draining", b"{}")
    assert held.recall_all("draining", "stopping", "draining") == [{}, None, {}]
    os.chown(one, 12345, -1)
    assert held.recall_all("draining", "intent") == [None, held.recall("intent")]
    assert held.recall("intent") is not None
    held.forget("draining")
    assert os.getxattr(one, "user.swarmcg.draining") == b"{}"
    os.chown(one, 0, -1)
    os.setxattr(one, "trusted.swarmcg.draining", b"{}")
    held.forget("draining")
    assert held.recall("draining") is None
    held.close()
