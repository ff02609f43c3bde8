"""Who refused a fork with EAGAIN: the pids limit of a cgroup above, or the limit of the user."""

import resource
import sys

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["fork_refused_by"]


def fork_refused_by() -> "tuple[str, str | None]":
    """The reason in words and the file that holds the limit, None where it is no file.

    The kernel answers EAGAIN for all of them: pids.max of any ancestor (cgroup v2 or v1), RLIMIT_NPROC,
    threads-max. An ancestor is named when it is full now; it may have emptied since the fork failed.
    """
    for directory in _pids_cgroups():
        limit, current = _read(f"{directory}/pids.max"), _read(f"{directory}/pids.current")
        if limit.isdigit() and current.isdigit() and int(current) >= int(limit):
            return f"the cgroup has {current} tasks and its pids.max is {limit}", f"{directory}/pids.max"
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY:
        return (
            f"RLIMIT_NPROC allows {soft} processes, or the kernel's threads-max or pid_max is reached",
            None,
        )
    return "the kernel's threads-max or pid_max is reached", "/proc/sys/kernel/threads-max"


def _pids_cgroups() -> "list[str]":
    """Our own cgroup and its ancestors, nearest first, wherever a pids controller may count us."""
    found = []
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            hierarchy, controllers, path = line.rstrip("\n").split(":", 2)
            mount = _mount("cgroup2" if hierarchy == "0" else "cgroup", controllers)
            if mount is None or (hierarchy != "0" and "pids" not in controllers.split(",")):
                continue
            while path.strip("/"):
                found.append(mount + path)
                path = path.rpartition("/")[0]
    return found


def _mount(kind: str, controllers: str) -> "str | None":
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            _, target, fstype, options = line.split()[:4]
            if fstype == kind and (
                kind == "cgroup2" or controllers.split(",", maxsplit=1)[0] in options.split(",")
            ):
                return target
    return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        return ""
