"""The rdma controller on a soft RoCE device, which Debian's full kernel has: scripts/vm test --kernel full."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.contract.rows import (
    RDMA,
    RDMA_DEVICE as DEVICE,
    Check,
    InForce,
    check_a_missing_write_is_noticed,
    check_in_force,
)
from tests.host.command import SOON_S, Command, line
from tests.systemd.machine import PYTHON, only_report, resources, wait_for

LINK: Final = "rdma-trial"
# What libibverbs does: IB_USER_VERBS_CMD_GET_CONTEXT, which makes a handle, and IB_USER_VERBS_CMD_ALLOC_PD, which makes
# an object, of include/uapi/rdma/ib_user_verbs.h: command, words asked and answered, where the answer goes. Says of
# each how many there were before the kernel refused one, and its errno.
USE: Final = """
import ctypes, json, os, struct, sys
answer = ctypes.create_string_buffer(8)
def verb(node, command, answered):
    os.write(node, struct.pack("=IHHQ", command, 4, answered, ctypes.addressof(answer)))
def until_refused(act):
    for done in range(8):
        try:
            act()
        except OSError as error:
            return done, error.errno
    return 8, 0
nodes = []
def handle():
    node = os.open(sys.argv[1], os.O_RDWR)
    nodes.append(node)
    verb(node, 0, 2)
handles = until_refused(handle)
objects = until_refused(lambda: verb(nodes[0], 3, 1))
print(json.dumps([handles, objects]))
"""
EAGAIN: Final = 11

pytestmark = pytest.mark.full_kernel


@pytest.fixture
def verbs() -> Iterator[str]:
    """The device node of a soft RoCE device on an interface without a wire."""
    _call("modprobe", "rdma_rxe")
    _call("ip", "link", "add", LINK, "type", "dummy")
    try:
        _call("ip", "link", "set", LINK, "up")
        _call("rdma", "link", "add", DEVICE, "type", "rxe", "netdev", LINK)
        _call("udevadm", "settle")
        yield str(_node())
    finally:
        _call("ip", "link", "delete", LINK)  # takes the device along


@pytest.mark.parametrize("row", RDMA, ids=str)
@pytest.mark.parametrize("check", [check_in_force, check_a_missing_write_is_noticed])
@pytest.mark.usefixtures("verbs")
def test_the_row_is_in_force(top_home: Path, scratch_disk: Path, row: InForce, check: Check) -> None:
    check(top_home, scratch_disk, row)


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({}, [[8, 0], [8, 0]]),
        ({"hcaHandles": 2}, [[2, EAGAIN], [8, 0]]),
        ({"hcaObjects": 3}, [[8, 0], [3, EAGAIN]]),
        ({"hcaHandles": 1, "hcaObjects": 0}, [[1, EAGAIN], [0, EAGAIN]]),
    ],
)
def test_verbs_beyond_the_limit_are_refused(
    top_home: Path, tmp_path: Path, verbs: str, limits: dict[str, int], found: list[list[int]]
) -> None:
    """Refused is the first one beyond, and none within."""
    command = Command(top_home, tmp_path)
    asked = resources(tmp_path, rdma={DEVICE: limits}) if limits else ()
    done = command("run", *asked, "--", *PYTHON, USE, verbs)
    assert done.stderr == ""
    assert json.loads(done.stdout) == found
    assert list(only_report(command).limits) == (["rdma.max"] if limits else [])


def test_a_limit_is_changed_while_the_bot_runs(top_home: Path, tmp_path: Path, verbs: str) -> None:
    """The half that is not named is kept, and the next verb meets the new one."""
    command = Command(top_home, tmp_path)
    first = resources(tmp_path, rdma={DEVICE: {"hcaHandles": 0, "hcaObjects": 5}})
    then = resources(tmp_path, rdma={DEVICE: {"hcaHandles": 3}})
    waiting = f"print('ready', flush=True)\ninput()\n{USE}"
    with command.running(
        "run", "--id", "user", *first, "--", *PYTHON, waiting, verbs, stdin=subprocess.PIPE
    ) as bot:
        wait_for("ready", bot.stdout)
        done = command("set", "user", *then)
        assert (done.returncode, done.stderr) == (0, "")
        assert bot.stdin is not None
        with bot.stdin as go:
            go.write("\n")
        assert json.loads(line(bot.stdout)) == [[3, EAGAIN], [5, EAGAIN]]
        assert bot.wait(SOON_S) == 0


def test_a_device_that_is_not_there_is_an_error(top_home: Path, tmp_path: Path) -> None:
    command = Command(top_home, tmp_path)
    done = command("run", *resources(tmp_path, rdma={"mlx5_0": {"hcaHandles": 2}}), "--", "true")
    assert done.returncode == 125
    assert "rdma.mlx5_0" in done.stderr
    assert command.reports() == []


def _node() -> Path:
    (found,) = (
        place for place in Path("/sys/class/infiniband_verbs").glob("uverbs*") if _device(place) == DEVICE
    )
    return Path("/dev/infiniband") / found.name


def _device(place: Path) -> str:
    return (place / "ibdev").read_text().strip()


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
