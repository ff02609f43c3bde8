"""Limits on packets bite, land where they were asked to, and leave nothing, however a bot or its owner ends.

For each tier whose kernel has nftables, by `from tests.contract.network import *`.
"""

import bisect
import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.rtnl import rt_scope

from swarmcg.bot import Bandwidth
from swarmcg.cgroup import network
from swarmcg.cgroup.network import policing
from swarmcg.cgroup.slice import Slice
from swarmcg.cgroup.update import update
from swarmcg.errors import NetworkError, UnenforceableError, UpdateError
from swarmcg.keeper.spawn import Order
from swarmcg.resources import LinuxResources, Marking, Network, NetworkPlan, Rate
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.supervised import SupervisedBot
from tests import cgroups, device_programs
from tests.host.command import SOON_S, Command, line
from tests.host.engine import ENV, Driver, Engine, reports, slices, until
from tests.host.lan import (
    CABLE,
    SECOND,
    Lan,
    classes,
    foreign_table,
    lan,
    operators_classes,
    priorities,
    received,
    remove_table,
    roots,
    tables,
)

RATE: Final = 1_000_000
"""Bytes a second: little enough for a busy machine."""
ROUNDS: Final = 8 if "SWARMCG_TEST_VM" in os.environ else 100  # an emulated machine takes 2 s for one
CRASHES: Final = 4
FLOOD_S: Final = 6.0 if "SWARMCG_TEST_VM" in os.environ else 3.0
"""Whoever sends does nothing for tenths of a second on an emulated machine, and the bucket fills up meanwhile."""

SEND: Final = """
import os, socket, sys, time
kind, address, port, below = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
if below:
    path = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
    os.mkdir(f"{below}{path}/task")
    with open(f"{below}{path}/task/cgroup.procs", "w") as f:
        f.write("0")
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
sock.connect((address, port))
block = b"x" * (65536 if kind == "tcp" else 1200)
while True:
    try:
        sock.send(block)
    except ConnectionError:
        break
"""
RECEIVE: Final = """
import json, socket, sys, time
if sys.argv[1] == "tcp":
    server = socket.create_server(("10.213.0.2", 0))
    print(server.getsockname()[1], flush=True)
    sock, _ = server.accept()
else:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("10.213.0.2", 0))
    print(sock.getsockname()[1], flush=True)
start, count, seen = time.monotonic(), 0, []
while (chunk := sock.recv(1 << 16)) not in (b"", b"end"):
    count += len(chunk)
    seen.append((time.monotonic() - start, count))
print(json.dumps(seen), flush=True)
"""


@pytest.fixture
def cable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lan]:
    lack = network.probe().lack
    if lack is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{lack.why}: {lack.remedy}")
    monkeypatch.setenv("SWARMCG_RUNTIME_DIR", str(tmp_path / "run"))
    with lan() as made:
        yield made
        assert (tables(), roots()) == ([], [])


@pytest.fixture
def engine(home: Path, tmp_path: Path, cable: Lan) -> Iterator[Engine]:
    del cable
    with Engine(home, tmp_path) as engine:
        yield engine


def sender(
    engine: Engine, sock: socket.socket, *, kind: str = "tcp", below: str = "", **launch: Any
) -> SupervisedBot:
    address, port = sock.getsockname()
    return engine.start(sys.executable, "-I", "-S", "-c", SEND, kind, address, str(port), below, **launch)


def egress(rate: int = RATE) -> Bandwidth:
    return Bandwidth(egress_bps=rate, interface=CABLE)


def oci(**fields: Any) -> LinuxResources:
    return LinuxResources.from_json(json.dumps({"network": fields}))


@pytest.mark.parametrize("below", [False, True], ids=["the bot", "a cgroup of its own"])
def test_what_is_sent_by_tcp_keeps_to_the_rate(engine: Engine, cable: Lan, below: bool) -> None:
    with cable.listen() as server:
        bot = sender(engine, server, below=str(cgroups.mount()) if below else "", bandwidth=egress())
        with server.accept()[0] as sock:
            sock.settimeout(30)
            received(sock, 0.3)
            assert told("TCP sent", received(sock, 2)) == pytest.approx(RATE, rel=0.15)
    bot.terminate_or_kill(0)
    assert bot.wait(SOON_S).limits == {"bandwidth.egress_bps": f"{CABLE} {RATE}"}


def test_what_is_sent_by_udp_keeps_to_the_rate(engine: Engine, cable: Lan) -> None:
    with cable.listen(socket.SOCK_DGRAM) as sock:
        bot = sender(engine, sock, kind="udp", bandwidth=egress())
        received(sock, 0.3)
        assert told("UDP sent", received(sock, 2)) == pytest.approx(RATE, rel=0.15)
    bot.terminate_or_kill(0)


def test_two_bots_do_not_share_a_rate_and_others_have_none(engine: Engine, cable: Lan) -> None:
    with cable.listen() as first, cable.listen() as second, cable.listen() as free:
        for server, bandwidth in ((first, egress()), (second, egress(RATE // 4)), (free, None)):
            sender(engine, server, bot_id=f"bot-{server.fileno()}", bandwidth=bandwidth)
        with first.accept()[0] as a, second.accept()[0] as b, free.accept()[0] as c:
            received(b, 1)
            assert received(b, 1.5) == pytest.approx(RATE // 4, rel=0.15)
            assert received(c, 0.2) > 4 * RATE
            assert a.recv(1)


def test_what_is_received_by_tcp_keeps_to_the_rate(engine: Engine, cable: Lan) -> None:
    with receiver(engine, "tcp") as said, cable.connect(int(said.readline())) as sock:
        pump(sock, 4)
        sock.close()
        seen = json.loads(said.readline())
    assert told("TCP received, in its busiest second", busiest_second(seen)) <= 1.1 * RATE
    assert told("TCP received", between(seen, 0, 4)) >= 0.6 * RATE


def test_what_is_received_by_udp_keeps_to_the_rate(engine: Engine, cable: Lan) -> None:
    seen = flooded(engine, cable)
    # The bucket, a packet, and what a receiver that was held up takes from its buffer.
    assert max(count - RATE * at for at, count in seen) <= 0.25 * RATE
    assert 0.6 * RATE <= told("UDP received", between(seen, 0.5, FLOOD_S)) <= 1.1 * RATE


def test_an_interface_that_went_and_came_back_is_held_over_longer_times(engine: Engine, cable: Lan) -> None:
    seen = flooded(engine, cable, replug=True)
    # The kernel's own bucket holds a second's worth.
    assert max(count - RATE * at for at, count in seen) <= 1.05 * RATE
    assert 0.6 * RATE <= between(seen, 1, FLOOD_S) <= 1.1 * RATE


def test_a_class_that_went_with_its_interface_is_told_as_not_enforced(engine: Engine, cable: Lan) -> None:
    both = Bandwidth(egress_bps=RATE, ingress_bps=RATE, interface=CABLE)
    lost = engine.start("sleep", "1000", bot_id="lost", bandwidth=both)
    other = Bandwidth(egress_bps=RATE, interface=SECOND)
    kept = engine.start("sleep", "1000", bot_id="kept", bandwidth=other)
    cable.replug(CABLE)
    for bot in (lost, kept):
        bot.terminate_or_kill(0)
    report = lost.wait(SOON_S)
    assert report.limits == {"bandwidth.ingress_bps": f"{CABLE} {RATE}"}
    (row,) = report.unenforced
    assert (row.field, row.value, row.enforceable) == ("bandwidth.egress_bps", f"{CABLE} {RATE}", False)
    assert "takes its classes along" in row.why
    report = kept.wait(SOON_S)
    assert (report.limits, report.unenforced) == ({"bandwidth.egress_bps": f"{SECOND} {RATE}"}, ())


def test_an_update_of_packet_rules_after_that_puts_the_class_in_force_again(
    engine: Engine, cable: Lan
) -> None:
    bot = engine.start("sleep", "1000", bandwidth=Bandwidth(egress_bps=RATE, interface=CABLE))
    cable.replug(CABLE)
    assert not classes()
    update([bot.slice], oci(priorities=[{"name": SECOND, "priority": 5}]))
    assert len(classes()) == 1
    bot.terminate_or_kill(0)
    assert bot.wait(SOON_S).unenforced == ()


def test_a_table_that_somebody_else_removed_is_told_as_not_enforced(engine: Engine, cable: Lan) -> None:  # noqa: ARG001
    bandwidth = Bandwidth(egress_bps=RATE, ingress_bps=RATE, interface=CABLE)
    wanted = oci(priorities=[{"name": SECOND, "priority": 5}])
    bot = engine.start("sleep", "1000", bandwidth=bandwidth, resources=wanted)
    remove_table(tables()[0])
    assert tables() == []
    bot.terminate_or_kill(0)
    report = bot.wait(SOON_S)
    assert report.limits == {"bandwidth.ingress_bps": f"{CABLE} {RATE}"}
    assert {row.field for row in report.unenforced} == {"bandwidth.egress_bps", "network.priorities[0]"}


def flooded(engine: Engine, cable: Lan, *, replug: bool = False) -> list[tuple[float, int]]:
    """What a bot received when of packets that come several times as fast as it may."""
    with receiver(engine, "udp") as said:
        port = int(said.readline())
        if replug:
            cable.replug(CABLE)
        with cable.connect(port, socket.SOCK_DGRAM) as sock:
            end = time.monotonic() + FLOOD_S + 0.5
            while time.monotonic() < end:
                for _ in range(20):
                    sock.send(b"x" * 1200)
                time.sleep(0.005)  # sets the pace
            time.sleep(0.2)  # lets the bucket have room for the last word
            sock.send(b"end")
            seen: list[tuple[float, int]] = json.loads(said.readline())
            return seen


@contextlib.contextmanager
def receiver(engine: Engine, kind: str) -> Iterator[IO[str]]:
    """A limited bot that says its port, and at its end what it received when."""
    hear, tell = os.pipe()
    with open(hear) as said:
        launch = Launch(bot_id="bot", bandwidth=Bandwidth(ingress_bps=RATE, interface=CABLE))
        argv = [sys.executable, "-I", "-S", "-c", RECEIVE, kind]
        with open(os.devnull, "rb") as null, open(tell, "wb") as stdout:
            engine.connection.reserve()
            stdio = (null.fileno(), stdout.fileno(), 2)
            bot = engine.connection.start(launch, argv, {}, cwd="/", stdio=stdio)
        try:
            yield said
        finally:
            bot.terminate_or_kill(0)
    assert bot.wait(SOON_S).limits == {"bandwidth.ingress_bps": f"{CABLE} {RATE}"}


def told(what: str, rate: float) -> float:
    """The figure itself; `-s` shows it."""
    print(f"{what}: {rate / RATE:.1%} of the limit")
    return rate


def pump(sock: socket.socket, seconds: float) -> None:
    """Sends as much as goes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sock.send(b"x" * 65536)


def between(seen: list[tuple[float, int]], start: float, end: float) -> float:
    """Bytes a second between two times."""
    before = max((count for at, count in seen if at <= start), default=0)
    after = max((count for at, count in seen if at <= end), default=0)
    return (after - before) / (end - start)


def busiest_second(seen: list[tuple[float, int]]) -> float:
    """The most bytes that came within any second."""
    counts = [0, *(count for _, count in seen)]
    times = [at for at, _ in seen]
    return max(count - counts[bisect.bisect_right(times, at - 1)] for at, count in seen)


def test_a_class_of_an_operators_own_set_up_gets_the_packets(engine: Engine, cable: Lan) -> None:
    with operators_classes(CABLE, 0x10, 0x20), cable.listen() as server:
        bot = sender(engine, server, resources=oci(classID=0x10010))
        with server.accept()[0] as sock:
            while classes()["1:10"] < RATE:
                assert sock.recv(1 << 18)
        bot.terminate_or_kill(0)
        assert bot.wait(SOON_S).limits == {"network.classID": "1:10"}
        assert classes()["1:20"] == 0
        assert roots() == ["htb 1:"]


def test_packets_get_the_priority_of_the_interface_that_they_leave_through(
    engine: Engine, cable: Lan
) -> None:
    asked = oci(priorities=[{"name": CABLE, "priority": 0x10010}, {"name": SECOND, "priority": 0x10020}])
    with operators_classes(CABLE, 0x10, 0x20), operators_classes(SECOND, 0x10, 0x20):
        for name, own, other in ((CABLE, "1:10", "1:20"), (SECOND, "1:20", "1:10")):
            with cable.listen(cable=name) as server:
                bot = sender(engine, server, resources=asked)
                with server.accept()[0] as sock:
                    while classes(name)[own] < RATE:
                        assert sock.recv(1 << 18)
                assert classes(name)[other] == 0
                bot.terminate_or_kill(0)
                assert bot.wait(SOON_S).limits == {
                    "network.priorities[0]": f"{CABLE} 65552",
                    "network.priorities[1]": f"{SECOND} 65568",
                }


def test_a_class_changes_while_the_bot_runs_and_goes(engine: Engine, cable: Lan) -> None:
    with operators_classes(CABLE, 0x10, 0x20), cable.listen() as server:
        bot = sender(engine, server, resources=oci(classID=0x10010))
        with server.accept()[0] as sock:
            for asked, minor in ((0x10020, "1:20"), (0x10010, "1:10")):
                bot.update(LinuxResources(network=Network(class_id=asked)))
                before = classes()[minor]
                while classes()[minor] < before + RATE:
                    assert sock.recv(1 << 18)
            bot.update(LinuxResources(network=Network(class_id=0)))
            assert tables() == []
        bot.terminate_or_kill(0)
        assert bot.wait(SOON_S).limits == {}


def test_an_update_that_fails_leaves_the_packet_rules_as_they_were(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = engine.start("sleep", "1000", resources=oci(classID=5))
    both = LinuxResources(network=Network(class_id=6), unified={"cgroup.max.depth": "7"})
    install = network.install

    def fail(rules: NetworkPlan, path: str) -> None:
        patched.undo()
        install(rules, path)
        raise NetworkError("The packet rules could not be read back")

    with monkeypatch.context() as patched:
        patched.setattr(network, "install", fail)
        with pytest.raises(UpdateError, match="every value is as it was before"):
            update([bot.slice], both)
    assert marked(bot) == 5
    assert Path(bot.slice, "cgroup.max.depth").read_text() == "max\n"
    update([bot.slice], both)
    assert marked(bot) == 6
    bot.terminate_or_kill(0)
    assert bot.wait(SOON_S).limits == {"cgroup.max.depth": "7", "network.classID": "0:6"}


def test_an_updater_that_was_killed_is_undone_by_the_next(engine: Engine) -> None:
    bot = engine.start("sleep", "1000", resources=oci(classID=5))
    with contextlib.closing(Slice.visit(bot.slice)) as held:
        before = held.recall("network")
        held.remember("updating", {"undo": [], "limits": None, "packets": [before]})
        held.filter(NetworkPlan(markings=(Marking(6),), limits={"network.classID": "0:6"}))
    assert marked(bot) == 6
    update([bot.slice], LinuxResources(unified={"cgroup.max.depth": "7"}))
    assert marked(bot) == 5
    bot.terminate_or_kill(0)
    assert bot.wait(SOON_S).limits == {"cgroup.max.depth": "7", "network.classID": "0:5"}


def marked(bot: SupervisedBot) -> int:
    """The one priority that packets of the bot get."""
    (priority,) = priorities(f"swarmcg-{bot.incarnation}")
    return priority


def test_a_root_qdisc_that_is_anothers_is_refused_and_left_as_it_is(engine: Engine) -> None:
    with operators_classes(CABLE, 0x10):
        with pytest.raises(
            UnenforceableError, match="another program has given cable0 the root qdisc htb 1:"
        ):
            engine.start("/bin/true", bandwidth=egress())
        bot = engine.start("/bin/true", bandwidth=egress(), on_unenforceable="report")
        report = bot.wait(SOON_S)
        assert (report.limits, [row.field for row in report.unenforced]) == ({}, ["bandwidth.egress_bps"])
        assert roots() == ["htb 1:"]
    assert slices(engine.home.path) == []


def test_a_root_that_another_took_at_the_last_moment_fails_the_start_and_leaves_nothing(
    home: Path, cable: Lan
) -> None:
    del cable
    there = home / "bot.0123456789abcdef"
    there.mkdir()
    with operators_classes(CABLE, 0x10):
        with pytest.raises(NetworkError, match="another program's"):
            network.install(NetworkPlan(egress=Rate(CABLE, RATE)), str(there))
        assert (tables(), roots()) == ([], ["htb 1:"])
    there.rmdir()


def test_an_interface_that_is_not_there_is_refused(engine: Engine) -> None:
    with pytest.raises(UnenforceableError, match="there is no network interface eth77"):
        engine.start("/bin/true", bandwidth=Bandwidth(egress_bps=RATE, interface="eth77"))
    with pytest.raises(UnenforceableError, match="no default route"):
        engine.start("/bin/true", bandwidth=Bandwidth(ingress_bps=RATE))


def test_without_an_interface_it_is_that_of_the_default_route(engine: Engine) -> None:
    with IPRoute() as ip:
        ip.route("add", dst="default", gateway="10.213.0.1")
    bot = engine.start("/bin/true", bandwidth=Bandwidth(egress_bps=RATE))
    assert bot.wait(SOON_S).limits == {"bandwidth.egress_bps": f"{CABLE} {RATE}"}


def test_loopback_is_limited_only_where_it_is_named(engine: Engine) -> None:
    with IPRoute() as ip:
        (loopback,) = ip.link_lookup(ifname="lo")
        ip.route("add", dst="0.0.0.0/0", oif=loopback, scope=rt_scope["link"])
        with pytest.raises(UnenforceableError, match="no default route to other hosts"):
            engine.start("/bin/true", bandwidth=Bandwidth(egress_bps=RATE))
        ip.route("add", dst="default", gateway="10.213.0.1", priority=9)
    for interface, taken in ((None, CABLE), ("lo", "lo")):
        bot = engine.start("/bin/true", bandwidth=Bandwidth(egress_bps=RATE, interface=interface))
        assert bot.wait(SOON_S).limits == {"bandwidth.egress_bps": f"{taken} {RATE}"}


def test_rules_are_replaced_in_one_step_and_removed(home: Path, cable: Lan) -> None:
    del cable
    there = home / "bot.0123456789abcdef"
    there.mkdir()
    path = str(there)
    network.install(NetworkPlan(egress=Rate(CABLE, RATE), ingress=Rate(CABLE, RATE)), path)
    assert (tables(), roots(), list(classes())) == (["swarmcg-0123456789abcdef"], ["htb 5357:"], ["5357:1"])
    assert len(policers(path)) == 1
    network.install(NetworkPlan(egress=Rate(SECOND, RATE)), path)
    assert policers(path) == []
    assert (tables(), roots(), roots(SECOND)) == (["swarmcg-0123456789abcdef"], [], ["htb 5357:"])
    network.install(NetworkPlan(markings=(Marking(5),)), path)
    assert (tables(), roots(SECOND)) == (["swarmcg-0123456789abcdef"], [])
    for _ in range(2):
        network.remove(path)
        assert tables() == []
    there.rmdir()


def policers(path: str) -> list[int]:
    return device_programs.attached(path, device_programs.ON_INGRESS)


def test_200_exchanges_leave_one_policer_and_none_is_left(home: Path, cable: Lan) -> None:
    del cable
    there = home / "bot.0123456789abcdef"
    there.mkdir()
    before = device_programs.of_ours(device_programs.ON_PACKETS)
    for k in range(200):
        with policing.policed(Rate(CABLE, RATE + k), str(there)):
            assert len(policers(str(there))) == 1
    assert len(device_programs.of_ours(device_programs.ON_PACKETS) - before) == 1
    there.rmdir()
    until(lambda: device_programs.of_ours(device_programs.ON_PACKETS) <= before)


def test_a_failed_replacement_leaves_the_earlier_rules(home: Path, cable: Lan) -> None:
    del cable
    there = home / "bot.0123456789abcdef"
    there.mkdir()
    network.install(NetworkPlan(egress=Rate(CABLE, RATE), ingress=Rate(CABLE, RATE)), str(there))
    before = policers(str(there))
    for failing in (
        NetworkPlan(egress=Rate("eth77", RATE), ingress=Rate(CABLE, 2 * RATE)),
        NetworkPlan(egress=Rate(CABLE, 2 * RATE), ingress=Rate("eth77", RATE)),
    ):
        with pytest.raises(NetworkError, match="no such network interface"):
            network.install(failing, str(there))
        assert (tables(), list(classes())) == (["swarmcg-0123456789abcdef"], ["5357:1"])
        assert policers(str(there)) == before
    network.remove(str(there))
    there.rmdir()


def test_what_a_lost_slice_leaves_is_listed_and_removed_by_clean(
    home: Path, tmp_path: Path, cable: Lan
) -> None:
    del cable
    (home / "other").mkdir()  # of another home: a slice here would be ownerless itself
    there = home / "other" / "bot.0123456789abcdef"
    there.mkdir()
    network.install(NetworkPlan(egress=Rate(CABLE, RATE), limits={}), str(there))
    swarmcg = Command(home, tmp_path)
    assert (swarmcg("clean").returncode, swarmcg("clean", "--yes").returncode) == (0, 0)
    assert tables() == ["swarmcg-0123456789abcdef"]  # its slice is there
    there.rmdir()
    (home / "other").rmdir()
    listed = swarmcg("clean")
    assert (listed.returncode, listed.stderr) == (1, "")
    assert listed.stdout.splitlines()[0] == (
        "of a slice that is gone: nftables table inet swarmcg-0123456789abcdef"
    )
    done = swarmcg("clean", "--yes")
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 2)
    assert (tables(), roots(), swarmcg("clean").returncode) == ([], [], 0)


def test_a_slice_with_a_path_too_long_to_be_noted_keeps_its_class(home: Path, cable: Lan) -> None:
    del cable
    nest = [home / ("a" * 120), home / ("a" * 120) / ("b" * 120)]
    there = nest[-1] / "bot.0123456789abcdef"
    there.mkdir(parents=True)
    network.install(NetworkPlan(egress=Rate(CABLE, RATE)), str(there))
    assert network.orphans(end=True) == []
    assert (tables(), list(classes())) == (["swarmcg-0123456789abcdef"], ["5357:1"])
    network.remove(str(there))
    for directory in (there, *reversed(nest)):
        directory.rmdir()


def test_what_other_programs_keep_with_their_tables_is_nobodys_business(home: Path, cable: Lan) -> None:
    """nft 1.1 keeps its version there."""
    del cable
    there = home / "bot.0123456789abcdef"
    there.mkdir()
    with foreign_table("other", b"\1\4\0\0\0\1"), foreign_table("swarmcg-fedcba9876543210", b"\1\1\0\0\2his"):
        network.install(NetworkPlan(markings=(Marking(5),)), str(there))
        network.remove(str(there))
        assert network.orphans(end=True) == []
    there.rmdir()


def test_what_a_lost_slice_leaves_is_removed_by_the_next_start(home: Path, engine: Engine) -> None:
    there = home / "bot.0123456789abcdef"
    there.mkdir()
    network.install(NetworkPlan(egress=Rate(CABLE, RATE)), str(there))
    there.rmdir()
    engine.start("/bin/true", bandwidth=Bandwidth(ingress_bps=RATE, interface=CABLE)).wait(SOON_S)
    assert (tables(), roots()) == ([], [])


def test_a_killed_run_leaves_limits_in_force_until_clean_ends_what_runs(
    home: Path, tmp_path: Path, cable: Lan
) -> None:
    del cable
    swarmcg = Command(home, tmp_path)
    flags = ("--egress-bps", "1m", "--ingress-bps", "1m", "--network-interface", CABLE)
    with swarmcg.running("run", *flags, "--", "sh", "-c", "echo ready; exec sleep 1000") as process:
        line(process.stdout)
        process.kill()
        process.wait()
    assert (len(tables()), roots()) == (1, ["htb 5357:"])
    assert swarmcg("clean", "--yes", "--grace", "0").returncode == 0
    assert (tables(), roots()) == ([], [])


@pytest.mark.parametrize("after", [0.3, 0.4, 0.5, 0.6, 0.8])
def test_killed_at_any_moment_of_its_start_a_run_leaves_nothing_that_clean_does_not_end(
    home: Path, tmp_path: Path, cable: Lan, after: float
) -> None:
    del cable
    swarmcg = Command(home, tmp_path)
    words = swarmcg.words("run", "--egress-bps", "1m", "--network-interface", CABLE, "--", "sleep", "1000")
    killed = ["timeout", "-s", "KILL", str(after), *words]
    subprocess.run(killed, env=swarmcg.env, check=False, timeout=SOON_S)
    assert swarmcg("clean", "--yes", "--grace", "0").returncode == 0
    assert (tables(), roots(), slices(home)) == ([], [], [])


def test_who_holds_the_lock_for_packet_rules_holds_up_no_other_bot(
    home: Path, tmp_path: Path, cable: Lan, monkeypatch: pytest.MonkeyPatch
) -> None:
    del cable
    driver = Driver(home, tmp_path)
    try:
        with open(os.devnull, "rb+") as null:
            order = Order(["sleep", "1000"], ENV, procs=-1, cwd="/", stdio=(null.fileno(),) * 3)
            bot = driver.supervisor.start(Launch(bot_id="bot", bandwidth=egress()), order, driver)
            other = driver.supervisor.start(Launch(bot_id="other"), order, driver)
            driver.turn_until(lambda: len(driver.began) == 2)
            with (tmp_path / "run" / "network.lock").open("rb+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                with monkeypatch.context() as patch:
                    patch.setattr(
                        time, "sleep", lambda _: pytest.fail("the thread of all bots waits for a lock")
                    )
                    bot.stop(0)
                    driver.turn_until(lambda: reports(driver.journal))
                    other.stop(0)
                    driver.turn_until(lambda: driver.ends)
            assert [report.bot_id for report, _ in driver.ends] == ["other"]
            driver.turn_until(lambda: len(driver.ends) == 2)
            assert driver.ends[1][1] is None  # nothing went wrong
    finally:
        driver.supervisor.close()


@pytest.mark.hostile
def test_many_starts_and_kills_leave_nothing_also_when_the_supervisor_is_killed(
    home: Path, tmp_path: Path, cable: Lan
) -> None:
    """With every program that a bot can have: for its devices, and for what it receives."""
    del cable
    limits: dict[str, Any] = {
        "bandwidth": Bandwidth(egress_bps=RATE, ingress_bps=RATE, interface=CABLE),
        "resources": LinuxResources(devices=()),
    }
    before = device_programs.loaded()
    for _ in range(CRASHES):
        with Engine(home, tmp_path) as engine:
            for _ in range(ROUNDS // CRASHES - 1):
                engine.start("sleep", "1000", **limits).terminate_or_kill(0)
            assert tables() == []
            device_programs.until_gone_since(before)
            bot = engine.start("sleep", "1000", **limits)
            assert (len(tables()), roots()) == (1, ["htb 5357:"])
            assert [len(device_programs.attached(bot.slice)), len(policers(bot.slice))] == [1, 1]
            engine.supervisor.kill()
        until(lambda: not slices(home))
        device_programs.until_gone_since(before)
    assert len(reports(tmp_path / "reports.jsonl")) == ROUNDS


def test_a_bot_without_network_limits_never_loads_what_speaks_netlink(home: Path, tmp_path: Path) -> None:
    program = f"""
import os, sys
from swarmcg.cgroup.find import find_home
from swarmcg.journal import Journal
from swarmcg.keeper.spawn import Order
from swarmcg.supervisor.incarnation import Nobody
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.supervisor import Supervisor
supervisor = Supervisor(find_home({str(home)!r}), Journal({str(tmp_path / "reports")!r}), in_process=True)
supervisor.start(Launch(bot_id="bot"), Order(["/bin/true"], {{}}, procs=-1), Nobody())
while supervisor.bots:
    supervisor.turn()
supervisor.close()
print(*(name for name in sys.modules if name.startswith(("pyroute2", "asyncio"))))
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], check=True, capture_output=True, text=True)
    assert (done.stdout, len(reports(tmp_path / "reports"))) == ("\n", 1)
