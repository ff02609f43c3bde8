"""What is read back from a slice's attributes, which its bot may have written."""

import errno
import json
import os
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from swarmcg.cgroup import slice as module
from swarmcg.cgroup.slice import Slice, packet_rules
from swarmcg.resources import Marking, NetworkPlan, Rate

KEPT: Final = NetworkPlan(
    markings=(Marking(0xFFFF_FFFF), Marking(5, "fifteen-letters")),
    egress=Rate("lo", 1024),
    ingress=Rate("eth0.7", (1 << 32) - 1),
    limits={
        "network.classID": "ffff:ffff",
        "network.priorities[1023]": "fifteen-letters 4294967295",
        "bandwidth.egress_bps": "lo 1024",
        "bandwidth.ingress_bps": "eth0.7 4294967295",
    },
)


def test_packet_rules_are_read_back_as_they_were_kept() -> None:
    assert packet_rules(json.loads(json.dumps(msgspec.to_builtins(KEPT)))) == KEPT
    assert packet_rules(None) is None


@pytest.mark.parametrize(
    "change",
    [
        {"markings": [{"priority": -1}]},
        {"markings": [{"priority": 1 << 32}]},
        {"markings": [{"priority": 5, "interface": ""}]},
        {"markings": [{"priority": 5, "interface": ".."}]},
        {"markings": [{"priority": 5, "interface": "a b"}]},
        {"markings": [{"priority": 5, "interface": "lo\n"}]},
        {"markings": [{"priority": 5, "interface": "a/b"}]},
        {"markings": [{"priority": 5, "interface": "a:0"}]},
        {"markings": [{"priority": 5, "interface": "a\0b"}]},
        {"markings": [{"priority": 5, "interface": "\ud800"}]},
        {"markings": [{"priority": 5, "interface": "sixteen-letters-"}]},
        {"markings": [{"priority": 5}] * 1025},
        {"egress": {"interface": "lo", "bytes_a_second": 1023}},
        {"egress": {"interface": "\ud800", "bytes_a_second": 1024}},
        {"ingress": {"interface": "lo", "bytes_a_second": 1 << 32}},
        {"ingress": {"interface": "lo", "bytes_a_second": -1}},
        {"limits": {"memory.max": "1"}},
        {"limits": {"network.\ud800": "1"}},
        {"limits": {"network.classID\n": "1"}},
        {"limits": {"network.classID": ""}},
        {"limits": {"network.classID": "\ud800"}},
        {"limits": {"network.classID": "x" * 33}},
        {"limits": {f"network.priorities[{k}]": "lo 5" for k in range(1025)}},
    ],
)
def test_packet_rules_that_we_never_kept_count_as_none(change: dict[str, Any]) -> None:
    assert packet_rules(msgspec.to_builtins(KEPT) | change) is None


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_a_cgroup_that_goes_while_its_slice_is_thawed_is_thawed(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    thawed = []

    def write_line(path: str, line: str) -> None:
        if "/sub/" in path:
            raise OSError(number, os.strerror(number))
        thawed.append((path, line))

    monkeypatch.setattr(module, "write_line", write_line)
    Slice(str(tmp_path), -1).thaw()
    assert thawed == [(f"{tmp_path}/cgroup.freeze", "0")]


def test_a_cgroup_that_cannot_be_thawed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_line(path: str, line: str) -> None:
        raise PermissionError(errno.EACCES, f"{path} {line}")

    monkeypatch.setattr(module, "write_line", write_line)
    with pytest.raises(PermissionError):
        Slice(str(tmp_path), -1).thaw()
