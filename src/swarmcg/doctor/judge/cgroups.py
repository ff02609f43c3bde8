"""Verdicts on how cgroups are mounted, and on the place for slices."""

from collections.abc import Iterator

from swarmcg.doctor.check import Check, fail, ok, warn
from swarmcg.doctor.seen import Linux

__all__ = [
    "container",
    "fast_joins",
    "home",
    "mode",
    "namespace_delegation",
    "ownerless",
    "recursive_protection",
    "writable",
]


def _boot(host: Linux) -> str:
    word = "cgroup_no_v1=all" if host.systemd is None else "systemd.unified_cgroup_hierarchy=1"
    return f"Boot with the parameter {word}."


def mode(host: Linux) -> Iterator[Check]:
    """Version 2 alone is what limits need."""
    held = ", ".join(sorted(host.cgroups.v1))
    match host.cgroups.mode:
        case "unified":
            yield ok("cgroup-mode", f"cgroup v2 alone, at {host.cgroups.mount}")
        case "hybrid":
            work = "Bots are placed, watched and killed by v2, and limited in devices and packets alone"
            why = f"hybrid: cgroup v1 holds {held}. {work}"
            yield warn("cgroup-mode", why, _boot(host))
        case "legacy":
            why = f"cgroup v1 only ({held}): no bot can be placed"
            yield fail(
                "cgroup-mode",
                why,
                f"{_boot(host)} Until then: mkdir -p /sys/fs/cgroup/unified && "
                "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
            )
        case "none":
            why = "no cgroup file system is mounted: no bot can be placed"
            yield fail("cgroup-mode", why, "mount -t cgroup2 cgroup2 /sys/fs/cgroup")


def writable(host: Linux) -> Iterator[Check]:
    """Containers get their cgroups read-only unless told otherwise."""
    if host.cgroups.mount is None:
        return
    if host.cgroups.writable:
        yield ok("cgroup-writable", f"{host.cgroups.mount} is mounted for writing")
    else:
        yield fail(
            "cgroup-writable",
            f"{host.cgroups.mount} is mounted read-only: no slice can be made",
            f"mount -o remount,rw,bind {host.cgroups.mount}; in docker: --privileged --cgroupns=private",
        )


def container(host: Linux) -> Iterator[Check]:
    """Told by namespaces, not by files that an image may have left."""
    seen = host.cgroups
    if seen.namespace:
        yield ok(
            "container",
            "a container with a cgroup namespace of its own: slices lie below its root, and limits from outside "
            "hold too",
        )
    elif seen.mount is not None and seen.own is None:
        yield warn(
            "container",
            f"a container without a cgroup namespace of its own: our cgroup is {seen.name}, which {seen.mount} does "
            "not show, so neither delegation nor limits from outside can be seen",
            "Start it with a private one (docker: --cgroupns=private), or in it: unshare --cgroup --mount, and mount "
            "cgroup2 anew.",
        )
    elif seen.pid_namespace or seen.root != "/":
        yield warn(
            "container",
            f"a container without a cgroup namespace of its own: {seen.mount} shows the host's cgroups, and what "
            "another container's manager does there reaches ours",
            "Start it with a private one (docker: --cgroupns=private).",
        )
    else:
        yield ok("container", "no container: the cgroup and PID namespaces are the host's")


def home(host: Linux) -> Iterator[Check]:
    """Where slices are made."""
    if host.home.path is not None and host.home.served is not None:
        yield ok("home", f"slices are made in the bots unit, {host.home.path}")
    elif host.home.path is not None and host.home.to_come:
        yield ok(
            "home",
            f"slices are made in a scope of their own, which systemd makes for each start ({host.home.path})",
        )
    elif host.home.path is not None and host.home.missing:
        yield ok("home", f"there is no such home yet; it is made when it is needed: {host.home.path}")
    elif host.home.path is not None:
        yield ok("home", f"slices are made in {host.home.path}")
    elif host.cgroups.mount is not None and host.cgroups.writable:  # else that has been told already
        yield fail("home", host.home.why, host.home.remedy)


def ownerless(host: Linux) -> Iterator[Check]:
    """What a crash left."""
    left = host.home.ownerless
    if host.home.path is None:
        return
    if left is None:
        yield warn(
            "ownerless", f"the slices in {host.home.path} cannot be looked at by this user", "Run as root."
        )
    elif left:
        some = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")  # noqa: PLR2004  enough to see where
        yield warn("ownerless", f"{len(left)} slices have no owner: {some}", "swarmcg clean --yes")
    else:
        yield ok("ownerless", "every slice has an owner")


def recursive_protection(host: Linux) -> Iterator[Check]:
    """The mount option memory_recursiveprot (Linux 5.7)."""
    if "memory" not in host.home.abilities.controllers:
        return
    if "memory_recursiveprot" in host.cgroups.options:
        yield ok(
            "mount.memory_recursiveprot",
            "memory.low and memory.min of a slice also protect cgroups that a bot makes",
        )
    else:
        yield warn(
            "mount.memory_recursiveprot",
            "off: memory.low and memory.min protect a slice, and nothing in cgroups that its bot makes below",
            f"mount -o remount,memory_recursiveprot {host.cgroups.mount}",
        )


def namespace_delegation(host: Linux) -> Iterator[Check]:
    """The mount option nsdelegate (Linux 4.13)."""
    if host.home.path is None or host.cgroups.mode != "unified":
        return
    if "nsdelegate" in host.cgroups.options:
        yield ok(
            "mount.nsdelegate",
            "a bot with a cgroup namespace of its own cannot leave it, nor change its limits",
        )
    else:
        yield warn(
            "mount.nsdelegate",
            "off: a bot that is root and has a cgroup namespace of its own can change the limits on its root, and move "
            "processes out of it",
            f"mount -o remount,nsdelegate {host.cgroups.mount}",
        )


def fast_joins(host: Linux) -> Iterator[Check]:
    """The mount option favordynmods (Linux 6.0). Either way is right."""
    if host.cgroups.mount is None or host.kernel.version < (6, 0):
        return
    if "favordynmods" in host.cgroups.options:
        yield ok(
            "mount.favordynmods",
            "on: starts join their slice at once, and every fork and exit costs a little more",
        )
    else:
        yield ok(
            "mount.favordynmods",
            "off: a start on an idle host may wait for some milliseconds to join its slice",
        )
