"""What becomes of network limits, as values."""

from typing import Any, Final

import msgspec
import pytest

from swarmcg.bot import Bandwidth
from swarmcg.errors import ResourcesError
from swarmcg.resources import (
    InterfacePriority,
    Lack,
    LinuxResources,
    Marking,
    Network,
    Networking,
    NetworkPlan,
    Plan,
    Rate,
    changed_packets,
    limits_packets,
    plan,
)
from tests.unit.resources.hosts import host, row

LINKS: Final = Networking(links={"eth0": None, "eth1": "tbf 8001:", "lo": None}, default="eth0")
EGRESS: Final = "bandwidth.egress_bps"
INGRESS: Final = "bandwidth.ingress_bps"


def planned(
    network: Network | None = None, bandwidth: Bandwidth | None = None, networking: Networking = LINKS
) -> Plan:
    return plan(LinuxResources(network=network), host(network=networking), bandwidth=bandwidth)


def prioritized(*entries: tuple[str, int]) -> Network:
    return Network(priorities=tuple(InterfacePriority(name=name, priority=n) for name, n in entries))


def why_not(made: Plan, field: str) -> str:
    found = row(made, field)
    assert not found.enforceable
    assert found.remedy
    return found.why


def test_nothing_asked_is_nothing_planned() -> None:
    for network in (None, Network(), Network(class_id=0, priorities=())):
        made = planned(network)
        assert (made.network, made.unenforced) == (None, ())


def test_a_class_becomes_the_priority_of_all_packets() -> None:
    made = planned(Network(class_id=0x0010_0001))
    assert made.network == NetworkPlan(markings=(Marking(0x0010_0001),), limits={"network.classID": "10:1"})
    assert (row(made, "network.classID").file, made.steps) == (None, ())


def test_priorities_are_those_of_their_interfaces() -> None:
    made = planned(prioritized(("eth0", 5), ("lo", 6)))
    assert made.network == NetworkPlan(
        markings=(Marking(5, "eth0"), Marking(6, "lo")),
        limits={"network.priorities[0]": "eth0 5", "network.priorities[1]": "lo 6"},
    )


def test_a_bandwidth_is_that_of_the_default_route_or_of_the_interface_named() -> None:
    made = planned(bandwidth=Bandwidth(egress_bps=2000, ingress_bps=3000))
    assert made.network == NetworkPlan(
        egress=Rate("eth0", 2000),
        ingress=Rate("eth0", 3000),
        limits={EGRESS: "eth0 2000", INGRESS: "eth0 3000"},
    )
    made = planned(bandwidth=Bandwidth(ingress_bps=3000, interface="eth1"))
    assert made.network == NetworkPlan(ingress=Rate("eth1", 3000), limits={INGRESS: "eth1 3000"})


def test_a_packet_has_one_priority() -> None:
    both = Network(class_id=5, priorities=(InterfacePriority(name="lo", priority=1),))
    assert "network.classID takes it" in why_not(planned(both), "network.priorities[0]")
    rate = Bandwidth(egress_bps=2000, ingress_bps=2000)
    made = planned(Network(class_id=5), rate)
    assert "network.classID takes it" in why_not(made, EGRESS)
    assert made.network is not None
    assert (made.network.egress, made.network.ingress) == (None, Rate("eth0", 2000))
    assert "network.priorities takes it" in why_not(planned(prioritized(("eth0", 1)), rate), EGRESS)
    assert planned(prioritized(("lo", 1)), rate).unenforced == ()


def test_a_root_qdisc_of_anothers_is_only_in_the_way_of_egress() -> None:
    made = planned(bandwidth=Bandwidth(egress_bps=2000, ingress_bps=2000, interface="eth1"))
    assert "tbf 8001:" in why_not(made, EGRESS)
    assert row(made, INGRESS).enforceable


@pytest.mark.parametrize(
    ("network", "bandwidth", "field"),
    [
        (prioritized(("eth7", 1)), None, "network.priorities[0]"),
        (None, Bandwidth(egress_bps=2000, interface="eth7"), EGRESS),
        (None, Bandwidth(ingress_bps=2000, interface="eth7"), INGRESS),
    ],
)
def test_an_interface_must_be_there(network: Network | None, bandwidth: Bandwidth | None, field: str) -> None:
    assert why_not(planned(network, bandwidth), field) == "there is no network interface eth7"


def test_without_one_default_route_the_interface_must_be_named() -> None:
    made = planned(bandwidth=Bandwidth(egress_bps=2000), networking=Networking(links={"eth0": None}))
    assert "no interface is named" in why_not(made, EGRESS)
    assert made.network is None


def test_where_packets_cannot_be_told_nothing_is_in_force() -> None:
    lack = Networking(lack=Lack("the kernel cannot", "Use another."))
    made = planned(Network(class_id=5), Bandwidth(egress_bps=2000), lack)
    assert [found.why for found in made.unenforced] == ["the kernel cannot"] * 2
    assert made.network is None


def test_without_a_program_what_is_received_is_not_limited_and_what_is_sent_is() -> None:
    lack = msgspec.structs.replace(LINKS, ingress=Lack("no program can be loaded", "Run as root."))
    made = planned(None, Bandwidth(egress_bps=2000, ingress_bps=3000), lack)
    assert [(row.field, row.why) for row in made.refused] == [(INGRESS, "no program can be loaded")]
    assert made.network is not None
    assert made.network.ingress is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a:b", "sixteen-letters!", "é" * 8])
def test_a_name_that_no_interface_can_have_makes_no_sense(name: str) -> None:
    with pytest.raises(ResourcesError, match=r"network.priorities\[0\].name"):
        planned(prioritized((name, 1)))


@pytest.mark.parametrize(
    ("resources", "bandwidth", "expected"),
    [
        (None, None, False),
        (LinuxResources(), None, False),
        (LinuxResources(network=Network(class_id=0, priorities=())), None, False),
        (LinuxResources(network=Network(class_id=1)), None, True),
        (LinuxResources(network=prioritized(("lo", 1))), None, True),
        (None, Bandwidth(egress_bps=2000), True),
    ],
)
def test_only_who_asks_for_it_makes_us_look_at_the_network(
    resources: Any, bandwidth: Bandwidth | None, expected: bool
) -> None:
    assert limits_packets(resources, bandwidth) is expected


def updated(before: NetworkPlan | None, asked: Network, networking: Networking = LINKS) -> NetworkPlan | None:
    made = planned(asked, networking=networking)
    return changed_packets(before, asked, made.network, made.rows)


CLASSED: Final = NetworkPlan(markings=(Marking(0x10010),), limits={"network.classID": "1:10"})
LISTED: Final = NetworkPlan(
    markings=(Marking(5, "lo"),),
    egress=Rate("eth0", 2000),
    limits={"network.priorities[0]": "lo 5", EGRESS: "eth0 2000"},
)


@pytest.mark.parametrize(
    ("before", "network", "after"),
    [
        (None, Network(), None),
        (None, Network(class_id=0x10010), CLASSED),
        (CLASSED, Network(), CLASSED),
        (CLASSED, Network(class_id=0), None),
        (CLASSED, Network(priorities=()), CLASSED),
        (CLASSED, Network(class_id=0x10010), CLASSED),
        (LISTED, Network(), LISTED),
        (LISTED, Network(class_id=0), LISTED),
        (LISTED, Network(priorities=()), NetworkPlan(egress=LISTED.egress, limits={EGRESS: "eth0 2000"})),
        (
            LISTED,
            prioritized(("eth1", 7)),
            NetworkPlan(
                markings=(Marking(7, "eth1"),),
                egress=LISTED.egress,
                limits={EGRESS: "eth0 2000", "network.priorities[0]": "eth1 7"},
            ),
        ),
        (LISTED, prioritized(("eth7", 7)), LISTED),  # not to be had: changes nothing
    ],
)
def test_an_update_changes_what_it_names(
    before: NetworkPlan | None, network: Network, after: NetworkPlan | None
) -> None:
    assert updated(before, network) == after


def test_an_update_that_cannot_be_in_force_changes_nothing() -> None:
    lack = Networking(lack=Lack("the kernel cannot", "Use another."))
    assert updated(CLASSED, Network(class_id=5), lack) == CLASSED


@pytest.mark.parametrize(
    ("before", "network"),
    [
        (CLASSED, prioritized(("lo", 1))),
        (LISTED, Network(class_id=5)),
        (NetworkPlan(egress=Rate("eth0", 2000), limits={EGRESS: "eth0 2000"}), Network(class_id=5)),
        (LISTED, prioritized(("eth0", 1))),
    ],
)
def test_an_update_gives_no_packet_a_second_priority(before: NetworkPlan, network: Network) -> None:
    with pytest.raises(ResourcesError, match="one priority"):
        updated(before, network)
