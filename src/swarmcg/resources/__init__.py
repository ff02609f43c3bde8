"""What is asked for a slice, and what that means in files of cgroup v2. Pure: nothing here touches the host."""

from swarmcg.resources.abilities import Abilities, Disk, Lack

__all__ = ["Abilities", "Disk", "Lack"]
