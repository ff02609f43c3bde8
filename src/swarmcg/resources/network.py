"""``network`` of the OCI resources: cgroup v2 has no controller for it."""

from collections.abc import Iterator

from swarmcg.bot import Row
from swarmcg.resources.abilities import Abilities
from swarmcg.resources.rows import impossible, nonsense, satisfied
from swarmcg.resources.spec import LinuxResources, Network

__all__ = ["plan"]

_WHY = "cgroup v2 has no network controller, and this version of swarmcg sets no packet rules"


def plan(resources: LinuxResources, abilities: Abilities) -> Iterator[Row]:  # noqa: ARG001  every controller's signature
    """The rows of ``network``."""
    network = resources.network or Network()
    if network.class_id == 0:
        yield satisfied("network.classID", None, "0 is no class, and packets have none")
    elif network.class_id is not None:
        yield impossible("network.classID", _WHY, "Leave it out.", value=network.class_id)
    for i, entry in enumerate(network.priorities or ()):
        field = f"network.priorities[{i}]"
        if not entry.name or "/" in entry.name or any(c.isspace() or not c.isprintable() for c in entry.name):
            nonsense(
                f"{field}.name", entry.name, "no network interface is named so", "Use a name from `ip link`."
            )
        yield impossible(field, _WHY, "Leave it out.", value=f"{entry.name} {entry.priority}")
