"""Hosts that differ from that of conftest.py."""

import msgspec

from swarmcg.cgroup.hierarchy import Hierarchy


def like(host: Hierarchy, **changes: object) -> Hierarchy:
    return msgspec.structs.replace(host, **changes)
