"""Where slices are, as nftables sees it, and which tables are orphans."""

import os
from pathlib import Path
from typing import Final

import pytest

from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.cgroup.network import place
from swarmcg.cgroup.network.place import Label, Place, Shaped, namespace_lack, orphaned, table_name
from swarmcg.errors import NetworkError

NAME: Final = "swarmcg-0123456789abcdef"
HERE: Final = os.stat("/proc/self/ns/cgroup").st_ino


def hierarchy(mount: str | None, root: str = "/") -> Hierarchy:
    return Hierarchy(mount=mount, writable=True, own=None, v1=frozenset(), systemd=False, root=root)


def test_a_level_is_counted_from_the_root_of_the_namespace(tmp_path: Path) -> None:
    there = tmp_path / "home" / "bot.0123456789abcdef"
    there.mkdir(parents=True)
    found = Place.of(str(there), hierarchy(str(tmp_path)))
    assert found == Place(
        cgroup_id=there.stat().st_ino, level=2, namespace=HERE, path="/home/bot.0123456789abcdef"
    )
    assert Place.of(str(there), hierarchy(str(tmp_path), "/docker/x")).level == 4
    assert table_name(str(there)) == table_name(found.path) == NAME


@pytest.mark.parametrize(("mount", "root"), [("/elsewhere", "/"), ("MOUNT", "/.."), (None, "/")])
def test_a_place_that_cannot_be_told_is_an_error(tmp_path: Path, mount: str | None, root: str) -> None:
    seen = hierarchy(str(tmp_path) if mount == "MOUNT" else mount, root)
    with pytest.raises(NetworkError, match="cannot be told"):
        Place.of(str(tmp_path / "bot.0123456789abcdef"), seen)


@pytest.mark.parametrize("shaped", [None, Shaped(3, 0x53570001)])
def test_a_table_remembers_where_its_slice_and_class_are(shaped: Shaped | None) -> None:
    where = Place(cgroup_id=9, level=2, namespace=HERE, path="/a b/bot.0123456789abcdef")
    written = Label(place=where, shaped=shaped)
    read = Label.read(written.name, written.user_data)
    assert read is not None
    assert (read.name, read.shaped) == (NAME, shaped)
    assert read.place is not None
    assert (read.place.namespace, read.place.path) == (HERE, where.path)


def test_a_path_that_would_be_too_long_is_left_out_but_not_the_class() -> None:
    most = 256 - len(b"TL") - len(f"{HERE} - /.0123456789abcdef") - len(b"\0")
    for length in (most, most + 1):
        where = Place(cgroup_id=9, level=2, namespace=HERE, path="/" + "a" * length + ".0123456789abcdef")
        assert (len(Label(place=where).user_data) == 256) is (length == most)
        read = Label.read(NAME, Label(place=where, shaped=Shaped(3, 0x53570001)).user_data)
        assert read is not None
        assert (read.place, read.shaped) == (None, Shaped(3, 0x53570001))
        assert not orphaned(read, hierarchy("/nowhere"))


def test_any_bytes_may_be_in_a_path() -> None:
    where = Place(cgroup_id=9, level=2, namespace=HERE, path="/\udcff\n.0123456789abcdef")
    read = Label.read(NAME, Label(place=where).user_data)
    assert read is not None
    assert read.place is not None
    assert read.place.path == where.path


def comment(text: str) -> bytes:
    return bytes((0, len(text) + 1)) + text.encode() + b"\0"


@pytest.mark.parametrize("data", [b"\1\4\0\0\0\1", b"\7", b"\0\xff", b"", b"\2\0"])
def test_what_else_is_kept_with_a_table_is_no_comment(data: bytes) -> None:
    assert Label.read(NAME, data) == Label(place=None, read_name=NAME)
    behind = Label.read(NAME, data + comment(f"{HERE} - /gone"))
    assert behind is not None
    assert (behind.place is None) is (data in {b"\7", b"\0\xff"})


@pytest.mark.parametrize("name", ["filter", "swarmcg", "swarmcg-", "swarmcg-0123456789abcdeg", NAME + "0"])
def test_tables_of_other_names_are_nobodys_business(name: str) -> None:
    assert Label.read(name, comment(f"{HERE} - /x")) is None


@pytest.mark.parametrize(
    ("said", "orphan"),
    [
        (f"{HERE} - /gone", True),
        (f"{HERE} 3:53570001 /gone", True),
        (f"{HERE} - /there", False),
        (f"{HERE + 1} - /gone", False),  # of another cgroup namespace: it may be there
        (None, False),
        ("somebody's own words", False),
        (f"{HERE} 3:5357 /gone", False),
    ],
)
def test_an_orphan_is_what_certainly_has_no_slice(tmp_path: Path, said: str | None, orphan: bool) -> None:
    (tmp_path / "there").mkdir()
    label = Label.read(NAME, None if said is None else comment(said))
    assert label is not None
    assert orphaned(label, hierarchy(str(tmp_path))) is orphan
    assert not orphaned(label, hierarchy(str(tmp_path), "/elsewhere"))  # a mount that shows another part
    assert not orphaned(label, hierarchy(None))


@pytest.mark.parametrize(
    ("namespace", "kernel", "able"),
    [
        (0xEFFFFFFB, (6, 1), True),
        (4026532000, (6, 1), False),
        (4026532000, (6, 11), True),
    ],
)
def test_levels_in_a_namespace_need_a_kernel_that_counts_them_there(
    monkeypatch: pytest.MonkeyPatch, namespace: int, kernel: tuple[int, int], able: bool
) -> None:
    monkeypatch.setattr(place, "_namespace", lambda: namespace)
    monkeypatch.setattr(place, "_kernel", lambda: kernel)
    assert (namespace_lack(hierarchy("/sys/fs/cgroup")) is None) is able


def test_what_shows_too_much_or_nothing_cannot_be_counted_in() -> None:
    for seen in (hierarchy(None), hierarchy("/sys/fs/cgroup", "/..")):
        assert namespace_lack(seen) is not None
