"""The parts of scripts/vm that need no machine."""

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Final

import pytest

from checks.vm import cache, image, qemu, run, tier


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(text: str) -> "cache.Maker":
    return lambda making: making.joinpath("file").write_text(text)


def test_what_is_there_is_not_made_again() -> None:
    first = cache.keep("thing", "thing-1", write("first"))
    assert cache.keep("thing", "thing-1", write("second")) == first == cache.find("thing-1")
    assert (first / "file").read_text() == "first"


def test_what_could_not_be_made_is_not_there() -> None:
    def fail(making: Path) -> None:
        (making / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.keep("thing", "thing-1", fail)
    assert cache.find("thing-1") is None
    assert sorted(os.listdir(cache.place())) == ["lock"]


def test_what_a_killed_builder_left_is_no_part_of_the_next_thing() -> None:
    (cache.place() / "making").mkdir(parents=True)
    (cache.place() / "making" / "half").touch()
    assert os.listdir(cache.keep("thing", "thing-1", write("whole"))) == ["file"]


def test_of_each_kind_the_last_used_stay() -> None:
    for number in range(cache.KEPT):
        made = cache.keep("thing", f"thing-{number}", write(""))
        os.utime(made, (number, number))
    cache.keep("other", "other-1", write(""))
    assert cache.find("thing-0")  # used again
    cache.keep("thing", "thing-new", write(""))
    kept = sorted(path.name for path in cache.place().iterdir() if path.is_dir())
    assert kept == ["other-1", "thing-0", "thing-2", "thing-new"]


def test_all_is_removed_but_what_others_may_hold_open() -> None:
    cache.keep("thing", "thing-1", write("text"))
    cache.clear()
    assert os.listdir(cache.place()) == ["lock"]


def test_a_key_tells_parts_that_join_to_the_same_bytes_apart() -> None:
    assert cache.key([b"ab", b"c"]) != cache.key([b"a", b"bc"])


@pytest.mark.parametrize(
    ("flags", "writable", "has"),
    [("fpu vmx sse", True, True), ("svm", True, True), ("vmx", False, False), ("fpu avmx", True, False)],
)
def test_kvm_takes_a_processor_and_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, writable: bool, has: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: vmx_something\n")
    monkeypatch.setattr(qemu, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(qemu, "KVM", tmp_path if writable else tmp_path / "missing")
    assert qemu.has_kvm() is has


def test_a_payload_belongs_to_root_and_all_may_read_it(tmp_path: Path) -> None:
    secretive = tmp_path / "extra"
    secretive.mkdir(mode=0o700)
    (secretive / "file").touch(mode=0o600)
    with (tmp_path / "payload").open("w+b") as payload:
        run.pack(payload, ["echo", "two words"], [secretive])
    with tarfile.open(tmp_path / "payload") as archive:
        entries = {entry.name: entry for entry in archive}
        command = archive.extractfile("command")
        assert command is not None
        assert command.read().endswith(b"exec echo 'two words'\n")
    assert {(entry.uid, entry.uname) for entry in entries.values()} == {(0, "root")}
    assert entries["extra/extra"].mode == 0o755
    assert entries["extra/extra/file"].mode == 0o644
    assert "checkout/pyproject.toml" in entries
    assert not any(name.startswith(("checkout/.venv", "checkout/.git/")) for name in entries)


def test_a_command_ends_before_its_machine_does() -> None:
    ended = subprocess.run(run.limited(["sleep", "1000"], time_limit=1), check=False, timeout=20)
    assert ended.returncode == 124
    done = subprocess.run(run.limited(["sh", "-c", "exit 7"], time_limit=1e9), check=False, timeout=20)
    assert done.returncode == 7


PANIC: Final = b"[    4.46] Kernel panic - not syncing: Fatal exception in interrupt\n"
BEGUN: Final = b"\x1b[!pguest: 6.12.1-cloud-amd64, systemd 257, up after 17.03 s\n"


@pytest.mark.parametrize(
    ("console", "died"), [(PANIC, True), (BEGUN + PANIC, False), (BEGUN, False), (b"", False)]
)
def test_a_kernel_that_died_before_the_command_is_started_again(console: bytes, *, died: bool) -> None:
    assert run.died_at_boot(io.BytesIO(console)) is died


def test_a_test_that_is_named_is_run_instead_of_the_tier() -> None:
    assert tier.tier_command([], full=True)[-1] == "tests/systemd"
    assert "tests/systemd" not in tier.tier_command(["tests/host/test_ends.py"], full=True)
    assert tier.tier_command(["-m", "long"], full=False)[-2:] == ["-m", "long"]


@pytest.mark.parametrize(
    ("kernel", "full", "marks"),
    [
        ("cloud", False, "not full and not full_kernel and not long"),
        ("cloud", True, "not full_kernel and not long"),
        ("full", False, "full_kernel and not full"),
        ("full", True, "full_kernel"),
    ],
)
def test_what_needs_the_full_kernel_is_run_with_it_alone(kernel: str, marks: str, *, full: bool) -> None:
    command = tier.tier_command([], full=full, kernel=kernel)
    assert command[command.index("-m", 5) + 1] == marks


def test_the_guest_installs_no_more_than_what_it_is_given() -> None:
    """The wheels are chosen here, and what is installed of them in the guest, by a script."""
    left_out = "{" + ", ".join(f'"{name}"' for name in image.OURS) + "}"
    assert f"extras.keys() - {left_out}" in (image.GUEST / "provision.sh").read_text()
