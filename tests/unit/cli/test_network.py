"""Network flags, and what they say."""

from typing import Any

import pytest

from swarmcg.bot import Bandwidth
from swarmcg.cli import flags, network
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.resources import InterfacePriority, LinuxResources, Network


def parsed(*words: str) -> Any:
    parser = Parser("test", "", "")
    flags.add_limits(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1:10", 0x0001_0010), ("a:0", 0x000A_0000), ("FFFF:ffff", 0xFFFF_FFFF), ("0x100001", 0x0010_0001)],
)
def test_a_class_is_written_as_tc_does_it(text: str, number: int) -> None:
    asked, _ = flags.resources(parsed("--network-class", text), LinuxResources())
    assert asked.network == Network(class_id=number)


@pytest.mark.parametrize(
    "text", ["", "1", "1:", ":1", "1:10000", "g:1", "1:2:3", "0x", "0x100000000", "-1:1"]
)
def test_what_is_no_class_is_one_error(text: str) -> None:
    with pytest.raises(UsageError, match="--network-class"):
        flags.resources(parsed(f"--network-class={text}"), LinuxResources())


def test_priorities_are_one_a_flag() -> None:
    words = ("--network-priority", "eth0:5", "--network-priority", "lo:4294967295")
    asked, _ = flags.resources(parsed(*words), LinuxResources())
    assert asked.network == Network(
        priorities=(
            InterfacePriority(name="eth0", priority=5),
            InterfacePriority(name="lo", priority=4294967295),
        )
    )


@pytest.mark.parametrize("text", ["", "eth0", "eth0:", ":5", "eth0:x", "eth0:1.5"])
def test_what_is_no_priority_is_one_error(text: str) -> None:
    with pytest.raises(UsageError, match="--network-priority"):
        flags.resources(parsed(f"--network-priority={text}"), LinuxResources())


def test_a_bandwidth_is_bytes_a_second_in_dockers_sizes() -> None:
    words = ("--egress-bps", "1.5m", "--ingress-bps", "2000", "--network-interface", "eth0")
    assert network.bandwidth(parsed(*words)) == Bandwidth(
        egress_bps=3 << 19, ingress_bps=2000, interface="eth0"
    )
    assert network.bandwidth(parsed()) is None


@pytest.mark.parametrize(
    "words",
    [
        ["--egress-bps", "x"],
        ["--egress-bps", "0"],
        ["--ingress-bps", "1023"],
        ["--egress-bps", "4g"],
        ["--network-interface", "eth0"],
        ["--egress-bps", "1m", "--network-interface", "a/b"],
    ],
)
def test_a_bandwidth_that_makes_no_sense_is_one_error(words: list[str]) -> None:
    with pytest.raises(UsageError) as e:
        network.bandwidth(parsed(*words))
    assert e.value.remedy
