"""What every kernel must show about device rules, as real opens of real nodes by root in a real slice.

Nodes are of 240, 241 and 242, numbers kept for experiments (Documentation/admin-guide/devices.txt), which no
driver has: the kernel asks the device program first, so EPERM means that it refused, and ENXIO that it did not.
"""

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from swarmcg.cgroup import bpf, device_filter, update
from swarmcg.cgroup.find import find_home
from swarmcg.errors import CgroupError, UpdateError
from swarmcg.keeper.spawn import Order
from swarmcg.resources import Device, DeviceRules, LinuxResources
from swarmcg.resources.device_rules import complete
from swarmcg.supervisor.launch import Launch
from tests import device_programs
from tests.host.command import Command, line
from tests.host.engine import ENV, SOON_S, Driver, Engine, read_line, said, slices, until

REFUSED: Final = "EPERM"
PASSED: Final = "ENXIO"

IN_GUEST: Final = (
    "SWARMCG_TEST_GUEST" in os.environ
)  # where a start takes a third of a second, and a command three
STARTS: Final = 20 if IN_GUEST else 100
CRASHES: Final = 2 if IN_GUEST else 5
DEFINED: Final = """
import errno, json, os, stat, sys
directory, *asked = sys.argv[1:]
def outcome(words):
    kind, numbers, how = words.split()
    number = os.makedev(*map(int, numbers.split(":")))
    path = f"{directory}/{kind}{numbers}"
    mode = {"b": stat.S_IFBLK, "c": stat.S_IFCHR}[kind] | 0o666
    try:
        if how == "m":
            os.mknod(f"{path}.made", mode, number)
            os.unlink(f"{path}.made")
        else:
            os.close(os.open(path, {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[how]))
    except OSError as e:
        return errno.errorcode[e.errno]
    return "ok"
"""
OPEN: Final = "print(json.dumps({words: outcome(words) for words in asked}), flush=True)"
PROBE: Final = DEFINED + OPEN

STORM: Final = """
import errno, os, sys
print("ready", flush=True)
count = 0
os.set_blocking(0, False)
while True:
    for _ in range(100):
        try:
            os.open(sys.argv[1], os.O_RDWR)
        except OSError as e:
            if e.errno != errno.EPERM:
                print("a gap", e, flush=True)
                sys.exit(1)
        count += 1
"""


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """A directory with nodes named as ``c240:1``."""
    directory = tmp_path / "nodes"
    directory.mkdir()
    for major in (240, 241, 242):
        for minor in (1, 2):
            for kind, mode in (("b", stat.S_IFBLK), ("c", stat.S_IFCHR)):
                os.mknod(directory / f"{kind}{major}:{minor}", mode | 0o666, os.makedev(major, minor))
    (directory / "c1:3").symlink_to("/dev/null")
    (directory / "c1:5").symlink_to("/dev/zero")
    return directory


@pytest.fixture(autouse=True)
def no_program_stays() -> Iterator[None]:
    before = device_programs.loaded()
    yield
    device_programs.until_gone_since(before)


def allow(kind: Any, major: int | None, minor: int | None, access: str = "rwm") -> Device:
    return Device(allow=True, type=kind, major=major, minor=minor, access=access)


def deny(kind: Any, major: int | None, minor: int | None, access: str = "rwm") -> Device:
    return Device(allow=False, type=kind, major=major, minor=minor, access=access)


RULES: Final = (
    allow("c", 240, 1, "rw"),
    allow("c", 241, None, "r"),
    allow("c", 241, 2, "w"),
    allow("b", None, 2, "r"),
    deny("c", 242, 2, "m"),
)
ALLOWED: Final = {
    "c 240:1 r": PASSED,
    "c 240:1 w": PASSED,
    "c 240:1 rw": PASSED,
    "c 240:2 r": REFUSED,
    "b 240:1 r": REFUSED,
    "c 241:1 r": PASSED,
    "c 241:1 w": REFUSED,
    "c 241:1 rw": REFUSED,
    "c 241:2 rw": PASSED,
    "b 240:2 r": PASSED,
    "b 242:2 r": PASSED,
    "b 242:2 rw": REFUSED,
    "c 242:1 r": REFUSED,
    "c 242:1 m": "ok",
    "c 242:2 m": REFUSED,
    "b 242:1 m": "ok",
    "c 1:3 rw": "ok",
    "c 1:5 r": "ok",
}


def told_by(engine: Engine, *argv: str, rules: tuple[Device, ...] | None = RULES) -> Any:
    """What a program in a slice with these rules says, as JSON."""
    with said() as (hear, tell), open(os.devnull, "rb") as null:
        engine.connection.reserve()
        launch = Launch(bot_id="bot", resources=LinuxResources(devices=rules))
        bot = engine.connection.start(launch, argv, ENV, cwd="/", stdio=(null.fileno(), tell, 2))
        found = json.loads(read_line(hear))
        report = bot.wait(SOON_S)
        assert ("devices" in report.limits) is (rules is not None)
        assert report.unenforced == ()
        return found


def test_each_access_is_refused_or_allowed_by_the_rules(engine: Engine, nodes: Path) -> None:
    assert told_by(engine, sys.executable, "-c", PROBE, str(nodes), *ALLOWED) == ALLOWED


def test_without_rules_nothing_is_refused(engine: Engine, nodes: Path) -> None:
    asked = [words for words, outcome in ALLOWED.items() if outcome == REFUSED]
    found = told_by(engine, sys.executable, "-c", PROBE, str(nodes), *asked, rules=None)
    assert REFUSED not in found.values()


def test_a_cgroup_that_the_bot_makes_is_no_way_out(engine: Engine, nodes: Path) -> None:
    inside = """
import os, sys
from pathlib import Path
mount = next(m.split()[4] for m in open("/proc/self/mountinfo") if " - cgroup2 " in m)
own = next(l[3:].strip() for l in open("/proc/self/cgroup") if l.startswith("0::"))
leaf = Path(f"{mount}{own}/leaf")
leaf.mkdir()
(leaf / "cgroup.procs").write_text("0")
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""
    found = told_by(engine, sys.executable, "-c", inside, PROBE, str(nodes), *ALLOWED)
    assert found == ALLOWED


def test_200_exchanges_under_load_leave_one_program_and_no_gap(engine: Engine, nodes: Path) -> None:
    resources = LinuxResources(devices=RULES)
    storm = engine.start(sys.executable, "-c", STORM, str(nodes / "c240:2"), resources=resources, ready=True)
    began = time.monotonic()
    for i in range(200):
        device_filter.exchange(storm.slice, complete((allow("c", 241, i, "r"),)))
        assert len(device_programs.attached(storm.slice)) == 1
    print(f"an exchange: {(time.monotonic() - began) * 5:.2f} ms")
    (number,) = device_programs.attached(storm.slice)
    assert number in device_programs.of_ours()
    storm.terminate_or_kill(0)
    assert storm.wait(SOON_S).exit_code is None


@contextlib.contextmanager
def bare(home: Path) -> Iterator[Path]:
    """A cgroup without swarmcg's slice around it."""
    directory = home / "bare"
    directory.mkdir()
    try:
        yield directory
    finally:
        directory.rmdir()


def opened_in(directory: Path, nodes: Path, *asked: str) -> Any:
    (found,) = opened_in_each([directory], nodes, *asked)
    return found


def opened_in_each(directories: Sequence[Path], nodes: Path, *asked: str) -> list[Any]:
    """What one process meets that goes from cgroup to cgroup."""
    walk = f"for place in {[str(path) for path in directories]}:\n" + textwrap.indent(
        'open(f"{place}/cgroup.procs", "w").write("0")\n' + OPEN, "    "
    )
    command = [sys.executable, "-I", "-S", "-c", DEFINED + walk, str(nodes), *asked]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(text) for text in done.stdout.splitlines()]


FIRST: Final = complete((allow("c", 240, 1),))
SECOND: Final = complete((allow("c", 240, 2),))
ASKED: Final = ("c 240:1 r", "c 240:2 r")


def test_an_exchange_replaces_and_none_takes_away(home: Path, nodes: Path) -> None:
    with bare(home) as directory:
        for rules, outcomes in (
            (FIRST, [PASSED, REFUSED]),
            (SECOND, [REFUSED, PASSED]),
            (None, [PASSED] * 2),
        ):
            device_filter.exchange(str(directory), rules)
            assert len(device_programs.attached(directory)) == (rules is not None)
            assert list(opened_in(directory, nodes, *ASKED).values()) == outcomes


def test_an_update_changes_the_devices_of_a_running_bot(engine: Engine, nodes: Path) -> None:
    bot = engine.start("sleep", "1000", resources=LinuxResources(devices=RULES))
    main = Path(bot.slice, "main")
    bot.update(LinuxResources(devices=(allow("c", 240, 2),)))
    assert list(opened_in(main, nodes, *ASKED).values()) == [REFUSED, PASSED]
    assert len(device_programs.attached(bot.slice)) == 1
    with pytest.raises(UpdateError, match="every value is as it was before") as caught:
        bot.update(LinuxResources(devices=(allow("c", 240, 1),), unified={"cgroup.max.depth": "x"}))
    assert (caught.value.errno, caught.value.in_force) == (errno.EINVAL, {})
    assert list(opened_in(main, nodes, *ASKED).values()) == [REFUSED, PASSED]
    bot.update(LinuxResources(unified={"cgroup.max.depth": "9"}))
    assert list(opened_in(main, nodes, *ASKED).values()) == [REFUSED, PASSED]
    bot.update(LinuxResources(devices=(Device(allow=True, access="rwm"),)))
    assert device_programs.attached(bot.slice) == []
    bot.update(LinuxResources(devices=()))
    assert list(opened_in(main, nodes, *ASKED).values()) == [REFUSED, REFUSED]
    bot.terminate_or_kill(0)
    limits = bot.wait().limits
    assert limits["devices"] == "deny all; standard devices allowed unless denied by number"
    assert limits["cgroup.max.depth"] == "9"


def test_a_later_slice_that_refuses_brings_the_earlier_ones_devices_back(
    home: Path, tmp_path: Path, nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten bots, of which the sixth cannot be attached to; and an updater that is killed in the same place."""
    with Engine(home, tmp_path) as engine:
        resources = LinuxResources(devices=(allow("c", 240, 1),))
        bots = [engine.start("sleep", "1000", bot_id=f"b{i}", resources=resources) for i in range(10)]
        paths = sorted(bot.slice for bot in bots)
        real = device_filter.exchange

        def refused(path: str, rules: DeviceRules | None) -> None:
            if path == paths[5] and rules is not None and rules.allows("c", 240, 2, "r"):
                raise CgroupError("refused", path=path, errno=errno.E2BIG)
            real(path, rules)

        wanted = LinuxResources(devices=(allow("c", 240, 2),))
        monkeypatch.setattr(device_filter, "exchange", refused)
        with pytest.raises(UpdateError, match="refused"):
            update.update(paths, wanted)
        mains = [Path(path, "main") for path in paths]
        old, new = (
            dict(zip(ASKED, [PASSED, REFUSED], strict=True)),
            dict(zip(ASKED, [REFUSED, PASSED], strict=True)),
        )
        assert opened_in_each(mains, nodes, *ASKED) == [old] * 10
        monkeypatch.setattr(device_filter, "exchange", real)
        killed_in_an_update(paths, wanted)
        assert opened_in_each(mains, nodes, *ASKED) == [new] * 5 + [old] * 5
        update.update(paths, LinuxResources(unified={"cgroup.max.depth": "9"}))
        assert opened_in_each(mains, nodes, *ASKED) == [old] * 10
        assert [len(device_programs.attached(path)) for path in paths] == [1] * 10


def killed_in_an_update(paths: list[str], wanted: LinuxResources) -> None:
    """Another process updates the slices, and is killed when it comes to the sixth."""
    program = """
import json, os, signal, sys
from swarmcg.cgroup import device_filter, update
from swarmcg.resources import LinuxResources
paths, wanted = json.loads(sys.argv[1]), LinuxResources.from_json(sys.argv[2])
real = device_filter.exchange
def exchange(path, rules):
    if path == paths[5]:
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, rules)
device_filter.exchange = exchange
update.update(paths, wanted)
"""
    words = [sys.executable, "-c", program, json.dumps(paths), wanted.to_json().decode()]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL


def test_a_refused_exchange_leaves_the_earlier_rules(
    home: Path, nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bare(home) as directory:
        device_filter.exchange(str(directory), FIRST)
        before = device_programs.attached(directory)
        # The program that is loaded is one that the kernel's verifier refuses: it ends without an answer.
        with monkeypatch.context() as patched:
            patched.setattr(device_filter, "assemble", lambda _: device_programs.YES[8:])
            with pytest.raises(CgroupError, match="verifier") as caught:
                device_filter.exchange(str(directory), SECOND)
            assert caught.value.errno == errno.EACCES
            assert "R0 !read_ok" in (caught.value.cause or "")
        # Another program of our name stays where only one should be.
        device_programs.attach(directory, device_programs.YES, device_programs.MULTI, bpf.NAME)
        with monkeypatch.context() as patched:
            patched.setattr(bpf, "detach", lambda *_: None)
            with pytest.raises(CgroupError, match="taken differently"):
                device_filter.exchange(str(directory), SECOND)
        assert list(opened_in(directory, nodes, *ASKED).values()) == [PASSED, REFUSED]
        device_filter.exchange(str(directory), FIRST)
        assert len(device_programs.attached(directory)) == len(before) == 1


def test_a_kernel_that_cannot_replace_in_place_gets_one_program_too(
    home: Path, nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = bpf._bpf, []

    def old(command: int, attributes: bytes) -> tuple[int, bytes]:
        flags = int.from_bytes(attributes[12:16], sys.byteorder)
        if command == 8 and flags & 4:
            refused.append(command)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(command, attributes)

    monkeypatch.setattr(bpf, "_bpf", old)
    with bare(home) as directory:
        for rules in (FIRST, SECOND, FIRST, SECOND):
            device_filter.exchange(str(directory), rules)
            assert len(device_programs.attached(directory)) == 1
        assert list(opened_in(directory, nodes, *ASKED).values()) == [REFUSED, PASSED]
    assert len(refused) == 3


def test_programs_of_others_are_left_alone_and_count(home: Path, nodes: Path) -> None:
    with bare(home) as directory:
        device_programs.attach(directory, device_programs.NO, device_programs.MULTI)
        (other,) = device_programs.attached(directory)
        for rules in (FIRST, SECOND):
            device_filter.exchange(str(directory), rules)
        assert len(device_programs.attached(directory)) == 2
        assert list(opened_in(directory, nodes, *ASKED).values()) == [REFUSED, REFUSED]
        device_filter.exchange(str(directory), None)
        assert device_programs.attached(directory) == [other]


def test_rules_of_an_ancestor_are_told_and_one_that_allows_none_below_is_a_lack(
    home: Path, tmp_path: Path
) -> None:
    assert find_home(str(home)).abilities().devices.above == ()
    with bare(home) as above:
        inner = above / "inner"
        inner.mkdir()
        device_programs.attach(above, device_programs.YES, device_programs.MULTI)
        found = find_home(str(inner)).abilities().devices
        assert (found.lack, found.above) == (None, (str(above),))
        inner.rmdir()
    with bare(home) as above:
        driver = Driver(above, tmp_path)
        try:
            start(driver)
            driver.turn_until(lambda: driver.ends)
            # After the look, so that the kernel itself refuses.
            device_programs.attach(above, device_programs.YES, device_programs.EXCLUSIVE)
            with pytest.raises(CgroupError) as caught:
                start(driver)
        finally:
            driver.supervisor.close()
        assert caught.value.errno == errno.EPERM
        assert slices(above) == []
        lack = find_home(str(above)).abilities().devices.lack
        assert lack is not None
        assert "allows none below it" in lack.why


def start(driver: Driver) -> None:
    with open(os.devnull, "rb+") as null:
        order = Order(["/bin/true"], ENV, procs=-1, cwd="/", stdio=(null.fileno(),) * 3)
        driver.supervisor.start(Launch(bot_id="bot", resources=LinuxResources(devices=RULES)), order, driver)


def test_a_user_without_root_is_told_what_it_takes(home: Path) -> None:
    os.seteuid(65534)  # with the user goes every effective capability, and comes back with root
    try:
        lack = device_filter.control([str(home)]).lack
        with pytest.raises(CgroupError) as caught:
            device_filter.exchange(str(home), FIRST)
    finally:
        os.seteuid(0)
    assert lack is not None
    assert "only root may do that (CAP_SYS_ADMIN)" in lack.why
    assert lack.remedy.startswith("Run as root.")
    assert (caught.value.errno, caught.value.remedy) == (errno.EPERM, lack.remedy)


def test_starts_and_kills_leave_no_program(engine: Engine) -> None:
    resources = LinuxResources(devices=RULES)
    made: set[int] = set()
    for _ in range(STARTS):
        bot = engine.start("sleep", "1000", resources=resources)
        (number,) = device_programs.attached(bot.slice)
        made.add(number)
        bot.terminate_or_kill(0)
    assert len(made) == STARTS
    until(lambda: made.isdisjoint(device_programs.of_ours()))


def test_swarmcg_killed_and_started_again_leaves_no_program(home: Path, tmp_path: Path) -> None:
    swarmcg = Command(home, tmp_path)
    made: set[int] = set()
    for _ in range(CRASHES):
        words = ("--device", "/dev/full", "--", "sh", "-c", "echo ready; exec sleep 1000")
        with swarmcg.running("run", *words) as process:
            assert line(process.stdout) == "ready"
            (name,) = swarmcg.slices()
            (number,) = device_programs.attached(home / name)
            made.add(number)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert swarmcg("clean", "--yes", "--grace", "0").returncode == 0
        assert swarmcg.slices() == []
    assert len(made) == CRASHES
    until(lambda: made.isdisjoint(device_programs.of_ours()))


def test_a_long_list_is_in_force(home: Path, nodes: Path) -> None:
    rules = complete(tuple(allow("c", 240, minor) for minor in range(2, 5000)))
    with bare(home) as directory:
        device_filter.exchange(str(directory), rules)
        assert list(opened_in(directory, nodes, *ASKED).values()) == [REFUSED, PASSED]


def test_rules_that_forbid_nothing_need_no_program(engine: Engine) -> None:
    all_of_them = (Device(allow=True, access="rwm"),)
    bot = engine.start("sleep", "1000", resources=LinuxResources(devices=all_of_them))
    assert device_programs.attached(bot.slice) == []
    assert DeviceRules(allow=True).all_allowed
    bot.terminate_or_kill(0)
